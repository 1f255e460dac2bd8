"""Pictures from text: SDXL."""

from __future__ import annotations

import dataclasses
from typing import Any

from fdiff import sampling
from fdiff.guidance import Guider
from fdiff.models import AutoencoderKL, CLIPTextModel, CLIPTextModelWithProjection, UNet2DConditionModel
from fdiff.pipelines import denoise, latent, text
from fdiff.pipelines.denoise import Guidance, Interval, Scale
from fdiff.pipelines.draws import Seed
from fdiff.pipelines.latent import Key, Pixels
from fdiff.pipelines.pipeline import DiffusionPipeline, ImageOutput, Params, make_plan
from fdiff.pipelines.portions import until
from fdiff.pipelines.text import Asked, MicroConditions, Prompt
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler
from fdiff.tokenizers import CLIPTokenizer


@dataclasses.dataclass(frozen=True)
class StableDiffusionXLPipeline(DiffusionPipeline):
    """Pictures from text with SDXL (Podell et al. 2023) and with what was distilled from it: Turbo, LCM."""

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    scheduler: Scheduler
    text_encoder: CLIPTextModel | CLIPTextModelWithProjection | None = None
    text_encoder_2: CLIPTextModelWithProjection | None = None
    tokenizer: CLIPTokenizer | None = None
    tokenizer_2: CLIPTokenizer | None = None
    force_zeros_for_empty_prompt: bool = True

    encode_prompt = text.encode_prompt
    decode = latent.decode

    def __call__(
        self, params: Params, prompt: Prompt = None, *, denoising_end: float | None = None, key: Key = None,
        torch_seed: Seed = None, negative_prompt: Prompt = None, guidance_scale: Scale = 5.0,
        guidance_rescale: Scale = 0.0, guidance_interval: Interval = None, num_inference_steps: int = 50,
        num_images_per_prompt: int = 1, height: Pixels = None, width: Pixels = None, prompt_embeds: Any = None,
        negative_prompt_embeds: Any = None, latents: Any = None, micro_conditions: MicroConditions | None = None,
        guider: Guider | None = None, attention: Any = None, plan: Plan | None = None, clip_skip: int = 0,
        output_type: str = "pil", progress: bool = True,
    ) -> ImageOutput:  # fmt: skip
        """Draw pictures: the arguments are those of `steps`, and those of `latent.output`."""
        latent.check_output_type(output_type)
        run = self.steps(
            params, prompt, denoising_end=denoising_end, key=key, torch_seed=torch_seed,
            negative_prompt=negative_prompt, guidance_scale=guidance_scale, guidance_rescale=guidance_rescale,
            guidance_interval=guidance_interval, num_inference_steps=num_inference_steps,
            num_images_per_prompt=num_images_per_prompt, height=height, width=width, prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds, latents=latents, micro_conditions=micro_conditions,
            guider=guider, attention=attention, plan=plan, clip_skip=clip_skip,
        )  # fmt: skip
        return latent.output(self, params, run, output_type, progress)

    def steps(
        self, params: Params, prompt: Prompt = None, *, denoising_end: float | None = None, key: Key = None,
        torch_seed: Seed = None, negative_prompt: Prompt = None, guidance_scale: Scale = 5.0,
        guidance_rescale: Scale = 0.0, guidance_interval: Interval = None, num_inference_steps: int = 50,
        num_images_per_prompt: int = 1, height: Pixels = None, width: Pixels = None, prompt_embeds: Any = None,
        negative_prompt_embeds: Any = None, latents: Any = None, micro_conditions: MicroConditions | None = None,
        guider: Guider | None = None, attention: Any = None, plan: Plan | None = None, clip_skip: int = 0,
    ) -> sampling.Steps:  # fmt: skip
        """The run to iterate over; the arguments are those of `StableDiffusionPipeline.steps`, and:

        negative_prompt: without one the model moves away from zeros, where the checkpoint says so
            (force_zeros_for_empty_prompt).
        denoising_end: stop when this share of the noise is gone; give the latents (output_type="latent") to a refiner
            with denoising_start of the same share.
        prompt_embeds, negative_prompt_embeds: pairs (embeddings, pooled) from `encode_prompt`, to which the second
            text encoder may be given prompts of its own.
        micro_conditions: what the model is told of the picture's size.
        """
        asked = Asked(
            prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, num_images_per_prompt, clip_skip, attention
        )
        size, factor = latent.latent_size(self, height, width), latent.factor_of(self.vae)
        table = until(make_plan(self.scheduler, num_inference_steps, plan), self.scheduler, denoising_end)
        how = Guidance(guidance_scale, guidance_rescale, guidance_interval, guider)
        texts = text.encode_asked(self, params, asked, denoise.is_guided(self.unet, guidance_scale))
        shape = (texts.batch_size, *size, self.vae.latent_channels)
        x, draws = latent.first_latents(table, shape, latents, key, torch_seed, texts.dtype)
        both = text.conditions_xl(self, texts, guidance_scale, micro_conditions, (size[0] * factor, size[1] * factor))
        return denoise.start_run(self, params, table, x, draws, both, how)
