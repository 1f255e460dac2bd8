"""Pictures from a picture and text (SDEdit, Meng et al. 2022): the pure function, and its stages."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from fdiff import sampling
from fdiff.models import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from fdiff.pipelines import denoise, inputs, latent, steering
from fdiff.pipelines.draws import Seed, Wanted, draw, draw_as_asked
from fdiff.pipelines.latent import Autoencoder, Begun
from fdiff.pipelines.pipeline import Params
from fdiff.pipelines.requests import Scale, Size
from fdiff.pipelines.steering import Control
from fdiff.pipelines.task import Key
from fdiff.pipelines.text import Counts, Texts
from fdiff.plan import Plan


def image_to_image(
    unet: UNet2DConditionModel, vae: AutoencoderKL, params: Params, plan: Plan, image: jax.Array, condition: Any,
    negative: Any, key: jax.Array, *, guidance_scale: Scale = 7.5, guidance_rescale: Scale = 0.0,
    nets: tuple[ControlNetModel, ...] = (), control: Control | None = None,
    remat: bool = False,
) -> jax.Array:  # fmt: skip
    """Redraw pictures (b, h, w, 3) in [-1, 1], noised to the plan's first level: a pure function (Meng et al. 2022).

        x = alpha z + sigma noise,  z drawn from the autoencoder's distribution of the picture's latents

    plan: of a strength, scheduler.plan(50, strength=0.6). The other arguments are those of `text_to_image`.
    """
    shape = (image.shape[1] // latent.factor_of(vae), image.shape[2] // latent.factor_of(vae), vae.latent_channels)
    (for_encoder, noise), later, _ = draw(key, image.shape[0], Wanted(shape), Wanted(shape))
    latents = latent.encoded(vae, params["vae"], image, for_encoder)
    network = steering.controlled(denoise.denoiser(unet, params), params, nets, control)
    guided = denoise.guide(network, condition, negative, guidance_scale, guidance_rescale)
    latents = sampling.sample(guided, plan, noised(plan, latents, noise), later, remat=remat)
    return latent.decoded(vae, params["vae"], latents)


def noised(plan: Plan, latents: jax.Array, noise: jax.Array) -> jax.Array:
    """Latents at the plan's first level."""
    return plan.alpha[0] * latents + plan.sigma[0] * noise


def from_picture(
    vae: Autoencoder, params: Params, plan: Plan, image: np.ndarray, size: Size, texts: Texts | Counts, key: Key,
    torch_seed: Seed, denoising_start: float | None = None,
) -> Begun:  # fmt: skip
    """Stage: begin with the picture at the plan's first level, where it is already if it has a denoising_start.

    Where the seed is torch's, one picture is encoded once, as diffusers does, but for seeds that are one an image.
    """
    inputs.check_number("image", image, texts.batch_size, texts.prompts)
    shape, begun = (texts.batch_size, *size, vae.latent_channels), denoising_start is not None
    rows = None if isinstance(torch_seed, list | tuple) else len(image)
    for_encoder = Wanted(shape[1:], 0 if inputs.holds_latents(vae, image) else rows)
    wanted = for_encoder, Wanted(shape[1:], 0 if begun else None)
    draws = draw_as_asked(key, torch_seed, plan, shape, texts.dtype, *wanted)
    latents = inputs.latents_of(vae, params, image, draws.arrays[0], shape[0])
    return Begun(latents if begun else noised(plan, latents, draws.arrays[1]), draws)
