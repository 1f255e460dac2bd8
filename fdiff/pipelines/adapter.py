"""Pictures from text, steered by pictures: Stable Diffusion 1.x and 2.x with T2I-Adapters."""

from __future__ import annotations

import dataclasses
from typing import Any

from fdiff import sampling
from fdiff.guidance import Guider
from fdiff.image_processors import CLIPImageProcessor
from fdiff.models import AutoencoderKL, CLIPTextModel, StableDiffusionSafetyChecker, T2IAdapter, UNet2DConditionModel
from fdiff.pipelines import denoise, latent, steering, text
from fdiff.pipelines.denoise import Guidance, Interval, Scale
from fdiff.pipelines.draws import Seed
from fdiff.pipelines.inputs import Picture
from fdiff.pipelines.latent import Key
from fdiff.pipelines.pipeline import DiffusionPipeline, ImageOutput, Params, make_plan
from fdiff.pipelines.steering import Numbers
from fdiff.pipelines.text import Asked, Prompt
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler
from fdiff.tokenizers import CLIPTokenizer


@dataclasses.dataclass(frozen=True)
class StableDiffusionAdapterPipeline(DiffusionPipeline):
    """Pictures from text, steered by one or several T2I-Adapters (Mou et al. 2023).

    They are loaded as the nets of `StableDiffusionControlNetPipeline`, as adapter=... The pure function is
    `text_to_image`, with the adapters' features in both conditions.
    """

    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    unet: UNet2DConditionModel
    adapter: T2IAdapter | tuple[T2IAdapter, ...]
    scheduler: Scheduler
    safety_checker: StableDiffusionSafetyChecker | None = None
    feature_extractor: CLIPImageProcessor | None = None

    encode_prompt = text.encode_prompt
    decode = latent.decode

    def __call__(
        self, params: Params, prompt: Prompt = None, image: Picture = None, *,
        adapter_conditioning_scale: Numbers = 1.0, key: Key = None, torch_seed: Seed = None,
        negative_prompt: Prompt = None, guidance_scale: Scale = 7.5, guidance_rescale: Scale = 0.0,
        guidance_interval: Interval = None, num_inference_steps: int = 50, num_images_per_prompt: int = 1,
        prompt_embeds: Any = None, negative_prompt_embeds: Any = None, latents: Any = None,
        guider: Guider | None = None, attention: Any = None, plan: Plan | None = None, clip_skip: int = 0,
        output_type: str = "pil", progress: bool = True,
    ) -> ImageOutput:  # fmt: skip
        """Draw pictures: the arguments are those of `steps`, and those of `latent.output`."""
        latent.check_output_type(output_type)
        run = self.steps(
            params, prompt, image, adapter_conditioning_scale=adapter_conditioning_scale, key=key,
            torch_seed=torch_seed, negative_prompt=negative_prompt, guidance_scale=guidance_scale,
            guidance_rescale=guidance_rescale, guidance_interval=guidance_interval,
            num_inference_steps=num_inference_steps, num_images_per_prompt=num_images_per_prompt,
            prompt_embeds=prompt_embeds, negative_prompt_embeds=negative_prompt_embeds, latents=latents, guider=guider,
            attention=attention, plan=plan, clip_skip=clip_skip,
        )  # fmt: skip
        return latent.output(self, params, run, output_type, progress)

    def steps(
        self, params: Params, prompt: Prompt = None, image: Picture = None, *,
        adapter_conditioning_scale: Numbers = 1.0, key: Key = None, torch_seed: Seed = None,
        negative_prompt: Prompt = None, guidance_scale: Scale = 7.5, guidance_rescale: Scale = 0.0,
        guidance_interval: Interval = None, num_inference_steps: int = 50, num_images_per_prompt: int = 1,
        prompt_embeds: Any = None, negative_prompt_embeds: Any = None, latents: Any = None,
        guider: Guider | None = None, attention: Any = None, plan: Plan | None = None, clip_skip: int = 0,
    ) -> sampling.Steps:  # fmt: skip
        """The run to iterate over; the arguments are those of `StableDiffusionPipeline.steps`, and:

        image: what the adapter was trained on, of the size of the picture to draw; PIL, uint8 or float in [0, 1]; one
            for all prompts or one for each. For several adapters, a list with such for each.
        adapter_conditioning_scale: how strongly each acts, a number for all or one for each.
        """
        asked = Asked(
            prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, num_images_per_prompt, clip_skip, attention
        )
        how = Guidance(guidance_scale, guidance_rescale, guidance_interval, guider)
        size = latent.latent_size(self, *steering.picture_size(self.adapter, image))
        table = make_plan(self.scheduler, num_inference_steps, plan)
        texts = text.encode_asked(self, params, asked, denoise.is_guided(self.unet, guidance_scale))
        shape = (texts.batch_size, *size, self.vae.latent_channels)
        features = steering.features(self, params, image, adapter_conditioning_scale, shape, texts.prompts)
        x, draws = latent.first_latents(table, shape, latents, key, torch_seed, texts.dtype)
        condition, negative = text.conditions(self, texts, guidance_scale)
        both = condition._replace(features=features), negative and negative._replace(features=features)
        return denoise.start_run(self, params, table, x, draws, both, how)
