"""Pictures like a picture, as lambdalabs/sd-image-variations-diffusers draws them."""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from fdiff.image_processors import CLIPImageProcessor
from fdiff.models import (
    AutoencoderKL,
    CLIPVisionModelWithProjection,
    StableDiffusionSafetyChecker,
    UNet2DConditionModel,
)
from fdiff.pipelines import latent
from fdiff.pipelines.denoise import denoising, guided, is_guided
from fdiff.pipelines.latent import pictures, sized
from fdiff.pipelines.pipeline import DiffusionPipeline, Params, tree_of
from fdiff.pipelines.plans import planned
from fdiff.pipelines.requests import Interval, Latents, Pictures, Scale, Sized
from fdiff.pipelines.task import Task, needed, option
from fdiff.pipelines.text import Read, Texts, conditions
from fdiff.pipelines.text_to_image import from_noise
from fdiff.prompts import Encoded
from fdiff.schedulers import Scheduler
from fdiff.spacing import check_count


@dataclasses.dataclass(frozen=True)
class Variation(Sized, Latents):
    """Pictures like a picture."""

    image: Pictures = needed("what to draw variations of: PIL, uint8 or float in [-1, 1], one or several, of any size")
    _: KW_ONLY
    guidance_scale: Scale = option(7.5, "how closely to keep to the picture; at most 1 is none, and costs half")
    guidance_rescale: Scale = option(0.0, "0 to 1, against overexposure (Lin et al. 2023)")
    guidance_interval: Interval = option(None, "guide only in this part of the run, (0, 1) being all")
    num_inference_steps: int = option(50, "network calls", flag="steps")
    num_images_per_prompt: int = option(1, "pictures of each picture, side by side", flag="num-images")


def looked_at(
    image_encoder: CLIPVisionModelWithProjection, params: Params, unet: UNet2DConditionModel, image: Pictures,
    num_images_per_prompt: int, guidance_scale: Scale, feature_extractor: CLIPImageProcessor | None = None,
) -> Read:  # fmt: skip
    """Stage: one token for each picture, in place of a text; zeros are what to move away from."""
    check_count("num_images_per_prompt", num_images_per_prompt)
    pixels = (feature_extractor or CLIPImageProcessor())(image)
    tokens = _token(image_encoder, tree_of(params, "image_encoder"), pixels)
    count = num_images_per_prompt
    each = Encoded(jnp.repeat(tokens, count, axis=0), jnp.zeros((len(tokens) * count, tokens.shape[-1])))
    against = jax.tree.map(jnp.zeros_like, each) if is_guided(unet, guidance_scale) else None
    return Read(Texts(each, against, prompts=len(tokens)))


@partial(jax.jit, static_argnums=0)
def _token(encoder: Any, params: Any, pixels: Any) -> jax.Array:
    embeds: jax.Array = encoder.apply({"params": params}, pixels).image_embeds
    return embeds[:, None]


varying = Task(
    Variation, (sized, planned, looked_at, from_noise, conditions, denoising, guided), pictures,
    "Draw pictures like a picture.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class StableDiffusionImageVariationPipeline(DiffusionPipeline):
    """Pictures like a picture, which CLIP looks at in place of a text."""

    family: ClassVar[str] = "Stable Diffusion image variation"

    vae: AutoencoderKL
    image_encoder: CLIPVisionModelWithProjection
    unet: UNet2DConditionModel
    scheduler: Scheduler
    safety_checker: StableDiffusionSafetyChecker | None = None
    feature_extractor: CLIPImageProcessor | None = None

    decode = latent.decode
    __call__, steps = varying.methods()
