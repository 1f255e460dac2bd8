"""Pictures edited as a text says, with InstructPix2Pix: the pure function, and its stages."""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import guidance, sampling
from fdiff.models import AutoencoderKL, UNet2DConditionModel
from fdiff.pipelines import denoise, inputs, latent
from fdiff.pipelines.checks import check_scale
from fdiff.pipelines.denoise import Both, Condition, Network
from fdiff.pipelines.draws import Wanted, draw
from fdiff.pipelines.pipeline import Params
from fdiff.pipelines.requests import Large, Latents, Pictures, Prompted, Resized, Scale
from fdiff.pipelines.task import option
from fdiff.pipelines.text import Texts
from fdiff.plan import Plan


def instruct(
    unet: UNet2DConditionModel, vae: AutoencoderKL, params: Params, plan: Plan, image: jax.Array,
    condition: Condition, negative: Condition | None, key: jax.Array, *, guidance_scale: Scale = 7.5,
    image_guidance_scale: Scale = 1.5,
    remat: bool = False,
) -> jax.Array:  # fmt: skip
    """Edit pictures (b, h, w, 3) in [-1, 1]: a pure function (Brooks et al. 2023).

    The arguments are those of `text_to_image` and `guided_twice`.
    """
    shape = (image.shape[1] // latent.factor_of(vae), image.shape[2] // latent.factor_of(vae), vae.latent_channels)
    (noise,), later, _ = draw(key, image.shape[0], Wanted(shape))
    seen = seen_latents(vae, params, image)
    network = denoise.denoiser(unet, params)
    guided = guided_twice(network, condition, negative, seen, guidance_scale, image_guidance_scale)
    return latent.decoded(vae, params["vae"], sampling.sample(guided, plan, plan.start * noise, later, remat=remat))


def seen_latents(vae: AutoencoderKL, params: Params, image: Any) -> jax.Array:
    """What the U-Net sees of a picture: its most probable latents, not scaled as those that it denoises."""
    return vae.unscale(latent.encoded(vae, params["vae"], jnp.asarray(image, jnp.float32)))


def guided_twice(
    network: guidance.Conditional, condition: Any, negative: Any, seen: jax.Array, guidance_scale: Scale,
    image_guidance_scale: Scale, rescale: Scale | None = None,
) -> sampling.Network:  # fmt: skip
    """Guidance by the text and by the picture (Brooks et al. 2023, eq. 3):

        out = none + image_scale (image - none) + scale (both - image)

    where `image` sees the picture and the negative prompt, and `none` the negative prompt alone.
    """
    both = denoise.append(condition, seen)
    if negative is None:
        return guidance.given(network, both)
    image, none = denoise.append(negative, seen), denoise.append(negative, jnp.zeros_like(seen))
    scale, of_image = jnp.float32(guidance_scale), jnp.float32(image_guidance_scale)
    return guidance.composed(network, [both, image, none], [scale, of_image - scale, 1 - of_image], rescale=rescale)


@dataclasses.dataclass(frozen=True)
class Instruct(Prompted, Resized, Latents):
    """Pictures edited as a text says."""

    prompt: Any = option(None, "what to do to the picture, a text or several", flag=None)
    image: Pictures = option(
        None,
        "the picture: PIL, uint8 or float in [-1, 1], (h, w, 3), one for all prompts or one for each",
    )
    _: KW_ONLY
    image_guidance_scale: Scale = option(
        1.5, "how closely to keep to the picture; below 1 there is no guidance at all"
    )
    num_inference_steps: int = option(100)


@dataclasses.dataclass(frozen=True)
class InstructLarge(Large, Instruct):
    """The same with SDXL."""

    _: KW_ONLY
    guidance_rescale: Scale = option(0.0, "0 to 1, against overexposure (Lin et al. 2023)")


class Scaled(NamedTuple):
    """How closely to keep to the prompt, 1 where there is no guidance."""

    guidance_scale: Scale


def scaled(guidance_scale: Scale, image_guidance_scale: Scale) -> Scaled:
    """Stage: without guidance by the picture there is none by the text. Raises ValueError for scales that are none."""
    check_scale("guidance_scale", guidance_scale)
    check_scale("image_guidance_scale", image_guidance_scale)
    traced = isinstance(image_guidance_scale, jax.core.Tracer)
    return Scaled(guidance_scale if traced or np.all(np.asarray(image_guidance_scale) >= 1) else 1.0)


class SeenPicture(NamedTuple):
    """What the U-Net sees of the picture, (b, h, w, c)."""

    appended: jax.Array


def seen(
    vae: AutoencoderKL, params: Params, image: np.ndarray, texts: Texts, is_cosxl_edit: bool = False
) -> SeenPicture:
    """Stage: the latents of the picture, for each of the batch; CosXL sees them scaled as those that it denoises."""
    inputs.check_number("image", image, texts.batch_size, texts.prompts)
    latents = seen_latents(vae, params, image)
    return SeenPicture(inputs.spread("image", vae.scale(latents) if is_cosxl_edit else latents, texts.batch_size))


def guided_by_both(
    x: jax.Array, appended: jax.Array, denoiser: guidance.Conditional, both: Both, guidance_scale: Scale,
    image_guidance_scale: Scale, guidance_rescale: Scale | None = None,
) -> Network:  # fmt: skip
    """Stage: guidance by the text and by the picture."""
    scales = {"guidance_scale": guidance_scale, "image_guidance_scale": image_guidance_scale}
    for name, scale in {**scales, "guidance_rescale": guidance_rescale or 0.0}.items():
        check_scale(name, scale, len(x))
    return Network(
        guided_twice(denoiser, *both, appended, guidance_scale, image_guidance_scale, guidance_rescale)
    )
