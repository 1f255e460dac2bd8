"""Pictures from text: SDXL."""

from __future__ import annotations

import dataclasses
from typing import Any

from fdiff import sampling
from fdiff.models import AutoencoderKL, CLIPTextModel, CLIPTextModelWithProjection, UNet2DConditionModel
from fdiff.pipelines import latent, text
from fdiff.pipelines.draws import Seed
from fdiff.pipelines.latent import Guidance, Interval, Key, Pixels, Scale
from fdiff.pipelines.pipeline import DiffusionPipeline, ImageOutput, Params, make_plan
from fdiff.pipelines.portions import until
from fdiff.pipelines.text import Asked, Micro, Prompt, Size
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler
from fdiff.tokenizers import CLIPTokenizer


@dataclasses.dataclass(frozen=True)
class StableDiffusionXLPipeline(DiffusionPipeline):
    """Pictures from text with SDXL (Podell et al. 2023) and with what was distilled from it: Turbo, LCM."""

    vae: AutoencoderKL
    text_encoder_2: CLIPTextModelWithProjection
    tokenizer_2: CLIPTokenizer
    unet: UNet2DConditionModel
    scheduler: Scheduler
    text_encoder: CLIPTextModel | None = None
    tokenizer: CLIPTokenizer | None = None
    force_zeros_for_empty_prompt: bool = True

    encode_prompt = text.encode_prompt
    decode = latent.decode

    def __call__(
        self, params: Params, prompt: Prompt = None, *, key: Key = None, torch_seed: Seed = None,
        negative_prompt: Prompt = None, prompt_2: Prompt = None, negative_prompt_2: Prompt = None,
        guidance_scale: Scale = 5.0, guidance_rescale: Scale = 0.0, guidance_interval: Interval = None,
        num_inference_steps: int = 50, denoising_end: float | None = None, num_images_per_prompt: int = 1,
        height: Pixels = None, width: Pixels = None, prompt_embeds: Any = None, negative_prompt_embeds: Any = None,
        pooled_prompt_embeds: Any = None, negative_pooled_prompt_embeds: Any = None, latents: Any = None,
        original_size: Size | None = None, crops_coords_top_left: Size = (0, 0), target_size: Size | None = None,
        negative_original_size: Size | None = None, negative_crops_coords_top_left: Size = (0, 0),
        negative_target_size: Size | None = None, plan: Plan | None = None, clip_skip: int = 0,
        output_type: str = "pil", progress: bool = True,
    ) -> ImageOutput:  # fmt: skip
        """Draw pictures; the arguments are those of `steps`, and `output_type` and `progress` as ever."""
        latent.check_output_type(output_type)
        run = self.steps(
            params, prompt, key=key, torch_seed=torch_seed, negative_prompt=negative_prompt, prompt_2=prompt_2,
            negative_prompt_2=negative_prompt_2, guidance_scale=guidance_scale, guidance_rescale=guidance_rescale,
            guidance_interval=guidance_interval, num_inference_steps=num_inference_steps, denoising_end=denoising_end,
            num_images_per_prompt=num_images_per_prompt, height=height, width=width, prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds, pooled_prompt_embeds=pooled_prompt_embeds,
            negative_pooled_prompt_embeds=negative_pooled_prompt_embeds, latents=latents, original_size=original_size,
            crops_coords_top_left=crops_coords_top_left, target_size=target_size,
            negative_original_size=negative_original_size,
            negative_crops_coords_top_left=negative_crops_coords_top_left, negative_target_size=negative_target_size,
            plan=plan, clip_skip=clip_skip,
        )  # fmt: skip
        return latent.output(self, params, run, output_type, progress)

    def steps(
        self, params: Params, prompt: Prompt = None, *, key: Key = None, torch_seed: Seed = None,
        negative_prompt: Prompt = None, prompt_2: Prompt = None, negative_prompt_2: Prompt = None,
        guidance_scale: Scale = 5.0, guidance_rescale: Scale = 0.0, guidance_interval: Interval = None,
        num_inference_steps: int = 50, denoising_end: float | None = None, num_images_per_prompt: int = 1,
        height: Pixels = None, width: Pixels = None, prompt_embeds: Any = None, negative_prompt_embeds: Any = None,
        pooled_prompt_embeds: Any = None, negative_pooled_prompt_embeds: Any = None, latents: Any = None,
        original_size: Size | None = None, crops_coords_top_left: Size = (0, 0), target_size: Size | None = None,
        negative_original_size: Size | None = None, negative_crops_coords_top_left: Size = (0, 0),
        negative_target_size: Size | None = None, plan: Plan | None = None, clip_skip: int = 0,
    ) -> sampling.Steps:  # fmt: skip
        """The run to iterate over; the arguments are those of `StableDiffusionPipeline.steps`, and:

        prompt_2, negative_prompt_2: what the second text encoder reads, the same if not given. Without any negative
            prompt the model moves away from zeros where the checkpoint says so (force_zeros_for_empty_prompt).
        denoising_end: stop when this share of the noise is gone; give the latents (output_type="latent") to a refiner
            with denoising_start of the same share.
        pooled_prompt_embeds, negative_pooled_prompt_embeds: from `encode_prompt`, beside prompt_embeds.
        original_size, target_size: what the model is told of the picture's size (height, width) in pixels, that of
            the picture if not given; crops_coords_top_left: where it was cut out; and those of the negative side.
        """
        asked = Asked(
            prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, num_images_per_prompt, clip_skip,
            pooled_prompt_embeds, negative_pooled_prompt_embeds, prompt_2, negative_prompt_2,
        )  # fmt: skip
        micro = Micro(
            original_size, crops_coords_top_left, target_size, negative_original_size, negative_crops_coords_top_left,
            negative_target_size,
        )  # fmt: skip
        size, factor = latent.latent_size(self, height, width), latent.factor_of(self.vae)
        table = until(make_plan(self.scheduler, num_inference_steps, plan), self.scheduler, denoising_end)
        how = Guidance(guidance_scale, guidance_rescale, guidance_interval)
        texts = text.encode_asked(self, params, asked, latent.is_guided(self.unet, guidance_scale))
        shape = (texts.batch_size, *size, self.vae.latent_channels)
        x, draws = latent.first_latents(table, shape, latents, key, torch_seed, texts.dtype)
        both = text.conditions_xl(self, texts, guidance_scale, micro, (size[0] * factor, size[1] * factor))
        return latent.start_run(self, params, table, x, draws, both, how)
