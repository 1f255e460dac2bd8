"""A part of a picture painted anew, steered by pictures: Stable Diffusion 1.x and 2.x with ControlNets."""

from __future__ import annotations

import dataclasses
from typing import Any

from fdiff import sampling
from fdiff.guidance import Guider
from fdiff.image_processors import CLIPImageProcessor
from fdiff.models import (
    AutoencoderKL,
    CLIPTextModel,
    ControlNetModel,
    StableDiffusionSafetyChecker,
    UNet2DConditionModel,
)
from fdiff.pipelines import denoise, inputs, latent, steering, text
from fdiff.pipelines.denoise import Guidance, Interval, Scale
from fdiff.pipelines.draws import Seed
from fdiff.pipelines.inpaint import start
from fdiff.pipelines.inputs import Picture
from fdiff.pipelines.latent import Key
from fdiff.pipelines.pipeline import DiffusionPipeline, ImageOutput, Params, make_plan
from fdiff.pipelines.steering import Numbers, Steer
from fdiff.pipelines.text import Asked, Prompt
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler
from fdiff.tokenizers import CLIPTokenizer


@dataclasses.dataclass(frozen=True)
class StableDiffusionControlNetInpaintPipeline(DiffusionPipeline):
    """A part of a picture painted anew, steered by one or several ControlNets (Zhang et al. 2023)."""

    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    unet: UNet2DConditionModel
    controlnet: ControlNetModel | tuple[ControlNetModel, ...]
    scheduler: Scheduler
    safety_checker: StableDiffusionSafetyChecker | None = None
    feature_extractor: CLIPImageProcessor | None = None

    encode_prompt = text.encode_prompt
    decode = latent.decode

    def __call__(
        self, params: Params, prompt: Prompt = None, image: Picture = None, mask_image: Picture = None,
        control_image: Picture = None, *, strength: float = 1.0, controlnet_conditioning_scale: Numbers = 0.5,
        control_guidance_start: Numbers = 0.0, control_guidance_end: Numbers = 1.0, guess_mode: bool = False,
        key: Key = None, torch_seed: Seed = None, negative_prompt: Prompt = None, guidance_scale: Scale = 7.5,
        guidance_rescale: Scale = 0.0, guidance_interval: Interval = None, num_inference_steps: int = 50,
        num_images_per_prompt: int = 1, prompt_embeds: Any = None, negative_prompt_embeds: Any = None,
        latents: Any = None, guider: Guider | None = None, attention: Any = None, plan: Plan | None = None,
        clip_skip: int = 0, output_type: str = "pil", progress: bool = True,
    ) -> ImageOutput:  # fmt: skip
        """Draw pictures: the arguments are those of `steps`, and those of `latent.output`."""
        latent.check_output_type(output_type)
        run = self.steps(
            params, prompt, image, mask_image, control_image, strength=strength,
            controlnet_conditioning_scale=controlnet_conditioning_scale, control_guidance_start=control_guidance_start,
            control_guidance_end=control_guidance_end, guess_mode=guess_mode, key=key, torch_seed=torch_seed,
            negative_prompt=negative_prompt, guidance_scale=guidance_scale, guidance_rescale=guidance_rescale,
            guidance_interval=guidance_interval, num_inference_steps=num_inference_steps,
            num_images_per_prompt=num_images_per_prompt, prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds, latents=latents, guider=guider, attention=attention,
            plan=plan, clip_skip=clip_skip,
        )  # fmt: skip
        return latent.output(self, params, run, output_type, progress)

    def steps(
        self, params: Params, prompt: Prompt = None, image: Picture = None, mask_image: Picture = None,
        control_image: Picture = None, *, strength: float = 1.0, controlnet_conditioning_scale: Numbers = 0.5,
        control_guidance_start: Numbers = 0.0, control_guidance_end: Numbers = 1.0, guess_mode: bool = False,
        key: Key = None, torch_seed: Seed = None, negative_prompt: Prompt = None, guidance_scale: Scale = 7.5,
        guidance_rescale: Scale = 0.0, guidance_interval: Interval = None, num_inference_steps: int = 50,
        num_images_per_prompt: int = 1, prompt_embeds: Any = None, negative_prompt_embeds: Any = None,
        latents: Any = None, guider: Guider | None = None, attention: Any = None, plan: Plan | None = None,
        clip_skip: int = 0,
    ) -> sampling.Steps:  # fmt: skip
        """The run to iterate over; the arguments are those of `StableDiffusionInpaintPipeline.steps`, and:

        control_image: what `StableDiffusionControlNetPipeline` calls image, of the size of the picture.
        The others of the ControlNets are its, too.
        """
        asked = Asked(
            prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, num_images_per_prompt, clip_skip, attention
        )
        how = Guidance(guidance_scale, guidance_rescale, guidance_interval, guider)
        steer = Steer(
            control_image, controlnet_conditioning_scale, control_guidance_start, control_guidance_end, guess_mode,
            "control_image",
        )  # fmt: skip
        array = inputs.pictures("image", image)
        size, pixels = inputs.check_picture(self, "image", array)
        mask = inputs.mask_pictures(mask_image, pixels)
        table = make_plan(self.scheduler, num_inference_steps, plan, strength)
        texts = text.encode_asked(self, params, asked, denoise.is_guided(self.unet, guidance_scale))
        inputs.check_number("image", array, texts.batch_size, texts.prompts)
        inputs.check_number("mask_image", mask, texts.batch_size, texts.prompts)
        shape = (texts.batch_size, *size, self.vae.latent_channels)
        x, draws, appended, after = start(
            self, params, table, array, mask, shape, strength, latents, key, torch_seed, texts.dtype
        )
        both = text.conditions(self, texts, guidance_scale, appended)
        network, both = steering.steer(self, params, table, both, steer, shape, texts.prompts)
        return denoise.start_run(self, params, table, x, draws, both, how, network=network, after=after)
