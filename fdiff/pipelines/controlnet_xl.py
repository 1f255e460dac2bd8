"""Pictures from text, steered by pictures: SDXL with ControlNets."""

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
from fdiff.pipelines import denoise, latent, steering, text
from fdiff.pipelines.denoise import Guidance, Interval, Scale
from fdiff.pipelines.draws import Seed
from fdiff.pipelines.inputs import Picture
from fdiff.pipelines.latent import Key
from fdiff.pipelines.pipeline import DiffusionPipeline, ImageOutput, Params, make_plan
from fdiff.pipelines.portions import until
from fdiff.pipelines.steering import Numbers, Steer
from fdiff.pipelines.text import Asked, MicroConditions, Prompt
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler
from fdiff.tokenizers import CLIPTokenizer


@dataclasses.dataclass(frozen=True)
class StableDiffusionXLControlNetPipeline(DiffusionPipeline):
    """Pictures from text with SDXL (Podell et al. 2023), steered by one or several ControlNets (Zhang et al. 2023).

        net = ControlNetModel.from_pretrained("diffusers/controlnet-canny-sdxl-1.0")
        pipe, params = StableDiffusionXLControlNetPipeline.from_pretrained(base, controlnet=net)

    Several come as a list, controlnet=[net, another].
    """

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    controlnet: ControlNetModel | tuple[ControlNetModel, ...]
    scheduler: Scheduler
    text_encoder: CLIPTextModel | CLIPTextModelWithProjection | None = None
    text_encoder_2: CLIPTextModelWithProjection | None = None
    tokenizer: CLIPTokenizer | None = None
    tokenizer_2: CLIPTokenizer | None = None
    force_zeros_for_empty_prompt: bool = True

    encode_prompt = text.encode_prompt
    decode = latent.decode

    def __call__(
        self, params: Params, prompt: Prompt = None, image: Picture = None, *,
        controlnet_conditioning_scale: Numbers = 1.0, control_guidance_start: Numbers = 0.0,
        control_guidance_end: Numbers = 1.0, guess_mode: bool = False, denoising_end: float | None = None,
        key: Key = None, torch_seed: Seed = None, negative_prompt: Prompt = None, guidance_scale: Scale = 5.0,
        guidance_rescale: Scale = 0.0, guidance_interval: Interval = None, num_inference_steps: int = 50,
        num_images_per_prompt: int = 1, prompt_embeds: Any = None, negative_prompt_embeds: Any = None,
        latents: Any = None, micro_conditions: MicroConditions | None = None, guider: Guider | None = None,
        attention: Any = None, plan: Plan | None = None, clip_skip: int = 0,
        output_type: str = "pil", progress: bool = True,
    ) -> ImageOutput:  # fmt: skip
        """Draw pictures: the arguments are those of `steps`, and those of `latent.output`."""
        latent.check_output_type(output_type)
        run = self.steps(
            params, prompt, image, controlnet_conditioning_scale=controlnet_conditioning_scale,
            control_guidance_start=control_guidance_start, control_guidance_end=control_guidance_end,
            guess_mode=guess_mode, denoising_end=denoising_end, key=key, torch_seed=torch_seed,
            negative_prompt=negative_prompt, guidance_scale=guidance_scale, guidance_rescale=guidance_rescale,
            guidance_interval=guidance_interval, num_inference_steps=num_inference_steps,
            num_images_per_prompt=num_images_per_prompt, prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds, latents=latents, micro_conditions=micro_conditions,
            guider=guider, attention=attention, plan=plan, clip_skip=clip_skip,
        )  # fmt: skip
        return latent.output(self, params, run, output_type, progress)

    def steps(
        self, params: Params, prompt: Prompt = None, image: Picture = None, *,
        controlnet_conditioning_scale: Numbers = 1.0, control_guidance_start: Numbers = 0.0,
        control_guidance_end: Numbers = 1.0, guess_mode: bool = False, denoising_end: float | None = None,
        key: Key = None, torch_seed: Seed = None, negative_prompt: Prompt = None, guidance_scale: Scale = 5.0,
        guidance_rescale: Scale = 0.0, guidance_interval: Interval = None, num_inference_steps: int = 50,
        num_images_per_prompt: int = 1, prompt_embeds: Any = None, negative_prompt_embeds: Any = None,
        latents: Any = None, micro_conditions: MicroConditions | None = None, guider: Guider | None = None,
        attention: Any = None, plan: Plan | None = None, clip_skip: int = 0,
    ) -> sampling.Steps:  # fmt: skip
        """The run to iterate over.

        The arguments are those of `StableDiffusionXLPipeline.steps`, but for the size, which is that of the pictures;
        and `image`, the three of control, and `guess_mode` of `StableDiffusionControlNetPipeline.steps`.
        """
        asked = Asked(
            prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, num_images_per_prompt, clip_skip, attention
        )
        steer = Steer(image, controlnet_conditioning_scale, control_guidance_start, control_guidance_end, guess_mode)
        pixels = steering.picture_size(self.controlnet, image)
        size = latent.latent_size(self, *pixels)
        table = until(make_plan(self.scheduler, num_inference_steps, plan), self.scheduler, denoising_end)
        how = Guidance(guidance_scale, guidance_rescale, guidance_interval, guider)
        texts = text.encode_asked(self, params, asked, denoise.is_guided(self.unet, guidance_scale))
        shape = (texts.batch_size, *size, self.vae.latent_channels)
        x, draws = latent.first_latents(table, shape, latents, key, torch_seed, texts.dtype)
        both = text.conditions_xl(self, texts, guidance_scale, micro_conditions, pixels)
        network, both = steering.steer(self, params, table, both, steer, shape, texts.prompts)
        return denoise.start_run(self, params, table, x, draws, both, how, network=network)
