"""Pictures from text, steered by pictures: Stable Diffusion 1.x and 2.x with ControlNets."""

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
from fdiff.pipelines import denoise, latent, steering, text
from fdiff.pipelines.denoise import Guidance, Interval, Scale
from fdiff.pipelines.draws import Seed
from fdiff.pipelines.inputs import Picture
from fdiff.pipelines.latent import Key
from fdiff.pipelines.pipeline import DiffusionPipeline, ImageOutput, Params, make_plan
from fdiff.pipelines.steering import Numbers, Steer
from fdiff.pipelines.text import Asked, Prompt
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler
from fdiff.tokenizers import CLIPTokenizer


@dataclasses.dataclass(frozen=True)
class StableDiffusionControlNetPipeline(DiffusionPipeline):
    """Pictures from text, steered by one or several ControlNets (Zhang et al. 2023).

        net = ControlNetModel.from_pretrained("lllyasviel/control_v11p_sd15_canny")
        pipe, params = StableDiffusionControlNetPipeline.from_pretrained(base, controlnet=net)

    Several come as a list, controlnet=[net, another].
    """

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
        self, params: Params, prompt: Prompt = None, image: Picture = None, *,
        controlnet_conditioning_scale: Numbers = 1.0, control_guidance_start: Numbers = 0.0,
        control_guidance_end: Numbers = 1.0, guess_mode: bool = False, key: Key = None, torch_seed: Seed = None,
        negative_prompt: Prompt = None, guidance_scale: Scale = 7.5, guidance_rescale: Scale = 0.0,
        guidance_interval: Interval = None, num_inference_steps: int = 50, num_images_per_prompt: int = 1,
        prompt_embeds: Any = None, negative_prompt_embeds: Any = None, latents: Any = None,
        guider: Guider | None = None, attention: Any = None, plan: Plan | None = None, clip_skip: int = 0,
        output_type: str = "pil", progress: bool = True,
    ) -> ImageOutput:  # fmt: skip
        """Draw pictures: the arguments are those of `steps`, and those of `latent.output`."""
        latent.check_output_type(output_type)
        run = self.steps(
            params, prompt, image, controlnet_conditioning_scale=controlnet_conditioning_scale,
            control_guidance_start=control_guidance_start, control_guidance_end=control_guidance_end,
            guess_mode=guess_mode, key=key, torch_seed=torch_seed, negative_prompt=negative_prompt,
            guidance_scale=guidance_scale, guidance_rescale=guidance_rescale, guidance_interval=guidance_interval,
            num_inference_steps=num_inference_steps, num_images_per_prompt=num_images_per_prompt,
            prompt_embeds=prompt_embeds, negative_prompt_embeds=negative_prompt_embeds, latents=latents, guider=guider,
            attention=attention, plan=plan, clip_skip=clip_skip,
        )  # fmt: skip
        return latent.output(self, params, run, output_type, progress)

    def steps(
        self, params: Params, prompt: Prompt = None, image: Picture = None, *,
        controlnet_conditioning_scale: Numbers = 1.0, control_guidance_start: Numbers = 0.0,
        control_guidance_end: Numbers = 1.0, guess_mode: bool = False, key: Key = None, torch_seed: Seed = None,
        negative_prompt: Prompt = None, guidance_scale: Scale = 7.5, guidance_rescale: Scale = 0.0,
        guidance_interval: Interval = None, num_inference_steps: int = 50, num_images_per_prompt: int = 1,
        prompt_embeds: Any = None, negative_prompt_embeds: Any = None, latents: Any = None,
        guider: Guider | None = None, attention: Any = None, plan: Plan | None = None, clip_skip: int = 0,
    ) -> sampling.Steps:  # fmt: skip
        """The run to iterate over; the arguments are those of `StableDiffusionPipeline.steps`, and:

        image: edges, depth, a pose: what the net was trained on, of the size of the picture to draw; PIL, uint8 or
            float in [0, 1]; one for all prompts or one for each. For several nets, a list with such for each.
        controlnet_conditioning_scale: how strongly each acts, a number for all or one for each.
        control_guidance_start, control_guidance_end: in which part of the run, 0 to 1.
        guess_mode: let the nets act without a prompt, more from the top to the bottom, on the positive side alone.
        """
        asked = Asked(
            prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, num_images_per_prompt, clip_skip, attention
        )
        how = Guidance(guidance_scale, guidance_rescale, guidance_interval, guider)
        steer = Steer(image, controlnet_conditioning_scale, control_guidance_start, control_guidance_end, guess_mode)
        size = latent.latent_size(self, *steering.picture_size(self.controlnet, image))
        table = make_plan(self.scheduler, num_inference_steps, plan)
        texts = text.encode_asked(self, params, asked, denoise.is_guided(self.unet, guidance_scale))
        shape = (texts.batch_size, *size, self.vae.latent_channels)
        x, draws = latent.first_latents(table, shape, latents, key, torch_seed, texts.dtype)
        both = text.conditions(self, texts, guidance_scale)
        network, both = steering.steer(self, params, table, both, steer, shape, texts.prompts)
        return denoise.start_run(self, params, table, x, draws, both, how, network=network)
