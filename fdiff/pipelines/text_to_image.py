"""Pictures from text: the pure function, and its stages."""

from __future__ import annotations

from typing import Any

import jax

from fdiff import sampling
from fdiff.models import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from fdiff.pipelines import denoise, latent, steering
from fdiff.pipelines.draws import Seed, Wanted, draw
from fdiff.pipelines.latent import Autoencoder, Begun
from fdiff.pipelines.pipeline import Params
from fdiff.pipelines.requests import Scale, Size
from fdiff.pipelines.steering import Control
from fdiff.pipelines.task import Key
from fdiff.pipelines.text import Counts, Texts
from fdiff.plan import Plan
from fdiff.rows import at_row


def text_to_image(
    unet: UNet2DConditionModel, vae: AutoencoderKL, params: Params, plan: Plan, condition: Any, negative: Any,
    key: jax.Array, *, size: Size, guidance_scale: Scale = 7.5, guidance_rescale: Scale = 0.0,
    nets: tuple[ControlNetModel, ...] = (), control: Control | None = None,
    remat: bool = False,
) -> jax.Array:  # fmt: skip
    """Draw pictures (b, h, w, 3), in [-1, 1] or nearly so: a pure function to jit, vmap and differentiate.

    Args:
        unet, vae: the modules; params: their parameters under these names.
        plan: from a scheduler.
        condition, negative: what to draw and what not, see `Condition`; without `negative` there is no guidance.
        key: one key, or (b,) keys; picture i depends on its own key alone.
        size: height and width in pixels.
        guidance_scale: out = negative + scale (positive - negative), a number or (b,).
        guidance_rescale: see `fdiff.guidance.classifier_free`.
        nets: ControlNets, a list of their trees being in params["controlnet"], and their pictures in the conditions,
            which then are `Steered`; control: how they act.
        remat: keep little for a gradient and compute the rest again, see `fdiff.sample`.
    """
    factor, batch_size = latent.factor_of(vae), len(jax.tree.leaves(at_row(condition, 0))[0])
    shape = (size[0] // factor, size[1] // factor, vae.latent_channels)
    (noise,), later, _ = draw(key, batch_size, Wanted(shape))
    network = steering.controlled(denoise.denoiser(unet, params), params, nets, control)
    guided = denoise.guide(network, condition, negative, guidance_scale, guidance_rescale)
    latents = sampling.sample(guided, plan, plan.start * noise, later, remat=remat)
    return latent.decoded(vae, params["vae"], latents)


def from_noise(
    vae: Autoencoder, plan: Plan, size: Size, texts: Texts | Counts, latents: Any, key: Key, torch_seed: Seed
) -> Begun:
    """Stage: begin with noise alone, the user's or drawn."""
    shape = (texts.batch_size, *size, vae.latent_channels)
    return latent.first_latents(plan, shape, latents, key, torch_seed, texts.dtype)
