"""Pictures from a picture and text, steered by pictures: SDXL with ControlNets."""

from __future__ import annotations

import dataclasses
from typing import Any

from fdiff import sampling
from fdiff.guidance import Guider
from fdiff.models import (
    AutoencoderKL,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    ControlNetModel,
    UNet2DConditionModel,
)
from fdiff.pipelines import denoise, inputs, latent, steering, text
from fdiff.pipelines.denoise import Guidance, Interval, Scale
from fdiff.pipelines.draws import Seed
from fdiff.pipelines.image_to_image import start
from fdiff.pipelines.inputs import Picture
from fdiff.pipelines.latent import Key
from fdiff.pipelines.pipeline import DiffusionPipeline, ImageOutput, Params
from fdiff.pipelines.portions import part
from fdiff.pipelines.steering import Numbers, Steer
from fdiff.pipelines.text import Asked, MicroConditions, Prompt
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler
from fdiff.tokenizers import CLIPTokenizer


@dataclasses.dataclass(frozen=True)
class StableDiffusionXLControlNetImg2ImgPipeline(DiffusionPipeline):
    """Pictures from a picture and text with SDXL, steered by one or several ControlNets (Zhang et al. 2023)."""

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    controlnet: ControlNetModel | tuple[ControlNetModel, ...]
    scheduler: Scheduler
    text_encoder: CLIPTextModel | CLIPTextModelWithProjection | None = None
    text_encoder_2: CLIPTextModelWithProjection | None = None
    tokenizer: CLIPTokenizer | None = None
    tokenizer_2: CLIPTokenizer | None = None
    force_zeros_for_empty_prompt: bool = True
    requires_aesthetics_score: bool = False

    encode_prompt = text.encode_prompt
    decode = latent.decode

    def __call__(
        self, params: Params, prompt: Prompt = None, image: Picture = None, control_image: Picture = None, *,
        strength: float = 0.8, denoising_start: float | None = None, denoising_end: float | None = None,
        controlnet_conditioning_scale: Numbers = 0.8, control_guidance_start: Numbers = 0.0,
        control_guidance_end: Numbers = 1.0, guess_mode: bool = False, key: Key = None, torch_seed: Seed = None,
        negative_prompt: Prompt = None, guidance_scale: Scale = 5.0, guidance_rescale: Scale = 0.0,
        guidance_interval: Interval = None, num_inference_steps: int = 50, num_images_per_prompt: int = 1,
        prompt_embeds: Any = None, negative_prompt_embeds: Any = None,
        micro_conditions: MicroConditions | None = None, guider: Guider | None = None, attention: Any = None,
        plan: Plan | None = None, clip_skip: int = 0, output_type: str = "pil", progress: bool = True,
    ) -> ImageOutput:  # fmt: skip
        """Draw pictures: the arguments are those of `steps`, and those of `latent.output`."""
        latent.check_output_type(output_type)
        run = self.steps(
            params, prompt, image, control_image, strength=strength, denoising_start=denoising_start,
            denoising_end=denoising_end, controlnet_conditioning_scale=controlnet_conditioning_scale,
            control_guidance_start=control_guidance_start, control_guidance_end=control_guidance_end,
            guess_mode=guess_mode, key=key, torch_seed=torch_seed, negative_prompt=negative_prompt,
            guidance_scale=guidance_scale, guidance_rescale=guidance_rescale, guidance_interval=guidance_interval,
            num_inference_steps=num_inference_steps, num_images_per_prompt=num_images_per_prompt,
            prompt_embeds=prompt_embeds, negative_prompt_embeds=negative_prompt_embeds,
            micro_conditions=micro_conditions, guider=guider, attention=attention, plan=plan, clip_skip=clip_skip,
        )  # fmt: skip
        return latent.output(self, params, run, output_type, progress)

    def steps(
        self, params: Params, prompt: Prompt = None, image: Picture = None, control_image: Picture = None, *,
        strength: float = 0.8, denoising_start: float | None = None, denoising_end: float | None = None,
        controlnet_conditioning_scale: Numbers = 0.8, control_guidance_start: Numbers = 0.0,
        control_guidance_end: Numbers = 1.0, guess_mode: bool = False, key: Key = None, torch_seed: Seed = None,
        negative_prompt: Prompt = None, guidance_scale: Scale = 5.0, guidance_rescale: Scale = 0.0,
        guidance_interval: Interval = None, num_inference_steps: int = 50, num_images_per_prompt: int = 1,
        prompt_embeds: Any = None, negative_prompt_embeds: Any = None,
        micro_conditions: MicroConditions | None = None, guider: Guider | None = None, attention: Any = None,
        plan: Plan | None = None, clip_skip: int = 0,
    ) -> sampling.Steps:  # fmt: skip
        """The run to iterate over; the arguments are those of `StableDiffusionXLImg2ImgPipeline.steps`, and:

        control_image: what `StableDiffusionXLControlNetPipeline` calls image, of the size of the picture.
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
        table = part(self.scheduler, num_inference_steps, plan, strength, denoising_start, denoising_end)
        texts = text.encode_asked(self, params, asked, denoise.is_guided(self.unet, guidance_scale))
        inputs.check_number("image", array, texts.batch_size, texts.prompts)
        shape = (texts.batch_size, *size, self.vae.latent_channels)
        begun = denoising_start is not None
        x, draws = start(self, params, table, array, shape, key, torch_seed, texts.dtype, begun=begun)
        both = text.conditions_xl(self, texts, guidance_scale, micro_conditions, pixels)
        network, both = steering.steer(self, params, table, both, steer, shape, texts.prompts)
        return denoise.start_run(self, params, table, x, draws, both, how, network=network)
