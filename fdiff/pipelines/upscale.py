"""Pictures four times as large: Stable Diffusion's x4 upscaler."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import sampling
from fdiff.guidance import Guider
from fdiff.models import AutoencoderKL, CLIPTextModel, UNet2DConditionModel
from fdiff.pipelines import denoise, inputs, latent, text
from fdiff.pipelines.denoise import Condition, Guidance, Interval, Scale
from fdiff.pipelines.draws import Seed, Wanted, draw, draw_as_asked
from fdiff.pipelines.inputs import Picture
from fdiff.pipelines.latent import Key
from fdiff.pipelines.pipeline import DiffusionPipeline, ImageOutput, Params, make_plan
from fdiff.pipelines.text import Asked, Prompt
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler
from fdiff.tokenizers import CLIPTokenizer


def upscale(
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    low_res_scheduler: Scheduler,
    params: Params,
    plan: Plan,
    image: jax.Array,
    noise_level: jax.Array | int,
    condition: Condition,
    negative: Condition | None,
    key: jax.Array,
    *,
    guidance_scale: Scale = 9.0,
) -> jax.Array:
    """Draw pictures four times as large as `image` (b, h, w, 3) in [-1, 1]: a pure function.

    low_res_scheduler: how the small picture is noised; noise_level: how much, one of its timesteps. The others are
    those of `text_to_image`.
    """
    wanted = (Wanted(image.shape[1:]), Wanted((*image.shape[1:3], vae.latent_channels)))
    (for_image, noise), later, _ = draw(key, image.shape[0], *wanted)
    both = told(low_res_scheduler, (condition, negative), image, for_image, noise_level)
    network = denoise.guide(denoise.denoiser(unet, params), *both, guidance_scale)
    return latent.decoded(vae, params["vae"], sampling.sample(network, plan, plan.start * noise, later))


def told(
    low_res_scheduler: Scheduler,
    both: tuple[Condition, Condition | None],
    image: jax.Array,
    noise: jax.Array,
    noise_level: jax.Array | int,
) -> tuple[Condition, Condition | None]:
    """The conditions with the small picture, noised, and the noise level as the class."""
    levels = jnp.full(image.shape[0], noise_level, jnp.int32)
    noisy = low_res_scheduler.add_noise(image, noise, levels)
    condition, negative = both
    return (
        condition._replace(appended=noisy, labels=levels),
        negative and negative._replace(appended=noisy, labels=levels),
    )


@dataclasses.dataclass(frozen=True)
class StableDiffusionUpscalePipeline(DiffusionPipeline):
    """Pictures four times as large, with stabilityai/stable-diffusion-x4-upscaler."""

    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    unet: UNet2DConditionModel
    scheduler: Scheduler
    low_res_scheduler: Scheduler
    max_noise_level: int = 350

    encode_prompt = text.encode_prompt
    decode = latent.decode

    def __call__(
        self, params: Params, prompt: Prompt = None, image: Picture = None, *, noise_level: int = 20, key: Key = None,
        torch_seed: Seed = None, negative_prompt: Prompt = None, guidance_scale: Scale = 9.0,
        guidance_rescale: Scale = 0.0, guidance_interval: Interval = None, num_inference_steps: int = 75,
        num_images_per_prompt: int = 1, prompt_embeds: Any = None, negative_prompt_embeds: Any = None,
        latents: Any = None, guider: Guider | None = None, attention: Any = None, plan: Plan | None = None,
        clip_skip: int = 0, output_type: str = "pil", progress: bool = True,
    ) -> ImageOutput:  # fmt: skip
        """Draw pictures: the arguments are those of `steps`, and those of `latent.output`."""
        latent.check_output_type(output_type)
        run = self.steps(
            params, prompt, image, noise_level=noise_level, key=key, torch_seed=torch_seed,
            negative_prompt=negative_prompt, guidance_scale=guidance_scale, guidance_rescale=guidance_rescale,
            guidance_interval=guidance_interval, num_inference_steps=num_inference_steps,
            num_images_per_prompt=num_images_per_prompt, prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds, latents=latents, guider=guider, attention=attention,
            plan=plan, clip_skip=clip_skip,
        )  # fmt: skip
        return latent.output(self, params, run, output_type, progress)

    def steps(
        self, params: Params, prompt: Prompt = None, image: Picture = None, *, noise_level: int = 20, key: Key = None,
        torch_seed: Seed = None, negative_prompt: Prompt = None, guidance_scale: Scale = 9.0,
        guidance_rescale: Scale = 0.0, guidance_interval: Interval = None, num_inference_steps: int = 75,
        num_images_per_prompt: int = 1, prompt_embeds: Any = None, negative_prompt_embeds: Any = None,
        latents: Any = None, guider: Guider | None = None, attention: Any = None, plan: Plan | None = None,
        clip_skip: int = 0,
    ) -> sampling.Steps:  # fmt: skip
        """The run to iterate over; the arguments are those of `StableDiffusionPipeline.steps`, and:

        prompt: what the picture shows.
        image: the small picture: PIL, uint8 or float in [-1, 1], (h, w, 3), one for all prompts or one for each.
        noise_level: how much noise it gets before it is looked at, 0 to max_noise_level; more hides its flaws.
        """
        if not isinstance(noise_level, int | np.integer) or not 0 <= noise_level <= self.max_noise_level:
            raise ValueError(f"noise_level is {noise_level!r}; it must be a whole number from 0 to "
                             f"{self.max_noise_level}")
        asked = Asked(
            prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, num_images_per_prompt, clip_skip, attention
        )
        how = Guidance(guidance_scale, guidance_rescale, guidance_interval, guider)
        array = inputs.pictures("image", image)
        if array.shape[-1] != 3:
            raise ValueError(f"image has {array.shape[-1]} channels; it must have 3")
        inputs.check_range("image", array, -1.0)
        table = make_plan(self.scheduler, num_inference_steps, plan)
        texts = text.encode_asked(self, params, asked, denoise.is_guided(self.unet, guidance_scale))
        inputs.check_number("image", array, texts.batch_size, texts.prompts)
        small = inputs.spread("image", array, texts.batch_size)
        shape = (*small.shape[:3], self.vae.latent_channels)
        wanted = (Wanted(array.shape[1:], len(array)), Wanted(shape[1:], None if latents is None else 0))
        draws = draw_as_asked(key, torch_seed, table, shape, texts.dtype, *wanted)
        noise = draws.arrays[1] if latents is None else latent.checked_latents(latents, shape)
        both = told(
            self.low_res_scheduler, text.conditions(self, texts, guidance_scale), small, draws.arrays[0], noise_level
        )
        return denoise.start_run(self, params, table, table.start * noise, draws, both, how)
