"""Pictures edited as a text says: InstructPix2Pix."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import guidance, sampling
from fdiff.image_processors import CLIPImageProcessor
from fdiff.models import AutoencoderKL, CLIPTextModel, StableDiffusionSafetyChecker, UNet2DConditionModel
from fdiff.pipelines import checks, denoise, inputs, latent, text
from fdiff.pipelines.denoise import Condition, Scale
from fdiff.pipelines.draws import Seed, Wanted, draw
from fdiff.pipelines.inputs import Picture
from fdiff.pipelines.latent import Key
from fdiff.pipelines.pipeline import DiffusionPipeline, ImageOutput, Params, make_plan
from fdiff.pipelines.text import Asked, Prompt
from fdiff.plan import Plan
from fdiff.sampling import Network
from fdiff.schedulers import Scheduler
from fdiff.tokenizers import CLIPTokenizer


def instruct(
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    params: Params,
    plan: Plan,
    image: jax.Array,
    condition: Condition,
    negative: Condition | None,
    key: jax.Array,
    *,
    guidance_scale: Scale = 7.5,
    image_guidance_scale: Scale = 1.5,
) -> jax.Array:
    """Edit pictures (b, h, w, 3) in [-1, 1]: a pure function (Brooks et al. 2023).

    The arguments are those of `text_to_image` and `guided_twice`.
    """
    shape = (image.shape[1] // latent.factor_of(vae), image.shape[2] // latent.factor_of(vae), vae.latent_channels)
    (noise,), later, _ = draw(key, image.shape[0], Wanted(shape))
    seen = seen_latents(vae, params, image)
    network = denoise.denoiser(unet, params)
    guided = guided_twice(network, condition, negative, seen, guidance_scale, image_guidance_scale)
    return latent.decoded(vae, params["vae"], sampling.sample(guided, plan, plan.start * noise, later))


def seen_latents(vae: AutoencoderKL, params: Params, image: Any) -> jax.Array:
    """What the U-Net sees of a picture: its most probable latents, not scaled as those that it denoises."""
    return vae.unscale(latent.encoded(vae, params["vae"], jnp.asarray(image, jnp.float32)))


def guided_twice(
    network: guidance.Conditional,
    condition: Condition,
    negative: Condition | None,
    seen: jax.Array,
    guidance_scale: Scale,
    image_guidance_scale: Scale,
) -> Network:
    """Guidance by the text and by the picture (Brooks et al. 2023, eq. 3):

        out = none + image_scale (image - none) + scale (both - image)

    where `image` sees the picture and the negative prompt, and `none` the negative prompt alone.
    """
    both = condition._replace(appended=seen)
    if negative is None:
        return guidance.given(network, both)
    image, none = negative._replace(appended=seen), negative._replace(appended=jnp.zeros_like(seen))
    scale, of_image = jnp.float32(guidance_scale), jnp.float32(image_guidance_scale)
    return guidance.composed(network, [both, image, none], [scale, of_image - scale, 1 - of_image])


@dataclasses.dataclass(frozen=True)
class StableDiffusionInstructPix2PixPipeline(DiffusionPipeline):
    """Pictures edited as a text says, such as timbrooks/instruct-pix2pix (Brooks et al. 2023)."""

    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    unet: UNet2DConditionModel
    scheduler: Scheduler
    safety_checker: StableDiffusionSafetyChecker | None = None
    feature_extractor: CLIPImageProcessor | None = None

    encode_prompt = text.encode_prompt
    decode = latent.decode

    def __call__(
        self, params: Params, prompt: Prompt = None, image: Picture = None, *, image_guidance_scale: Scale = 1.5,
        key: Key = None, torch_seed: Seed = None, negative_prompt: Prompt = None, guidance_scale: Scale = 7.5,
        num_inference_steps: int = 100, num_images_per_prompt: int = 1, prompt_embeds: Any = None,
        negative_prompt_embeds: Any = None, latents: Any = None, attention: Any = None, plan: Plan | None = None,
        clip_skip: int = 0, output_type: str = "pil", progress: bool = True,
    ) -> ImageOutput:  # fmt: skip
        """Draw pictures: the arguments are those of `steps`, and those of `latent.output`."""
        latent.check_output_type(output_type)
        run = self.steps(
            params, prompt, image, image_guidance_scale=image_guidance_scale, key=key, torch_seed=torch_seed,
            negative_prompt=negative_prompt, guidance_scale=guidance_scale, num_inference_steps=num_inference_steps,
            num_images_per_prompt=num_images_per_prompt, prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds, latents=latents, attention=attention, plan=plan,
            clip_skip=clip_skip,
        )  # fmt: skip
        return latent.output(self, params, run, output_type, progress)

    def steps(
        self, params: Params, prompt: Prompt = None, image: Picture = None, *, image_guidance_scale: Scale = 1.5,
        key: Key = None, torch_seed: Seed = None, negative_prompt: Prompt = None, guidance_scale: Scale = 7.5,
        num_inference_steps: int = 100, num_images_per_prompt: int = 1, prompt_embeds: Any = None,
        negative_prompt_embeds: Any = None, latents: Any = None, attention: Any = None, plan: Plan | None = None,
        clip_skip: int = 0,
    ) -> sampling.Steps:  # fmt: skip
        """The run to iterate over; the arguments are those of `StableDiffusionPipeline.steps`, and:

        prompt: what to do to the picture.
        image: the picture: PIL, uint8 or float in [-1, 1], (h, w, 3), one for all prompts or one for each; its sides
            are multiples of 8.
        image_guidance_scale: how closely to keep to the picture; below 1 there is no guidance at all.
        """
        asked = Asked(
            prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, num_images_per_prompt, clip_skip, attention
        )
        array = inputs.pictures("image", image)
        size, _ = inputs.check_picture(self, "image", array)
        table = make_plan(self.scheduler, num_inference_steps, plan)
        checks.check_scale("image_guidance_scale", image_guidance_scale)
        guided = denoise.is_guided(self.unet, guidance_scale) and bool(np.all(np.asarray(image_guidance_scale) >= 1))
        texts = text.encode_asked(self, params, asked, guided)
        inputs.check_number("image", array, texts.batch_size, texts.prompts)
        shape = (texts.batch_size, *size, self.vae.latent_channels)
        seen = inputs.spread("image", seen_latents(self.vae, params, array), texts.batch_size)
        x, draws = latent.first_latents(table, shape, latents, key, torch_seed, texts.dtype)
        condition, negative = text.conditions(self, texts, guidance_scale)
        denoise.check_condition(self, condition._replace(appended=seen))
        checks.check_scale("guidance_scale", guidance_scale, len(x))
        checks.check_scale("image_guidance_scale", image_guidance_scale, len(x))
        network = denoise.denoiser(self.unet, params)
        twice = guided_twice(network, condition, negative, seen, guidance_scale, image_guidance_scale)
        return sampling.steps(twice, table, x, draws.key, noise=draws.noise)
