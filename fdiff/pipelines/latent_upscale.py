"""Latents twice as large, with stabilityai/sd-x2-latent-upscaler: what is its own."""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff import guidance
from fdiff.models import AutoencoderKL
from fdiff.pipelines import inputs, latent
from fdiff.pipelines.denoise import Both, Condition, Denoising, denoiser, each
from fdiff.pipelines.draws import Draws, Seed, Wanted, draw_as_asked
from fdiff.pipelines.inputs import pictured
from fdiff.pipelines.latent import pictures
from fdiff.pipelines.pipeline import Params
from fdiff.pipelines.plans import Planned, planned
from fdiff.pipelines.requests import Guided, Latents, Pictures, Resized, Scale, Size
from fdiff.pipelines.stable_diffusion import READING, StableDiffusion, guided
from fdiff.pipelines.task import Key, Task, option
from fdiff.pipelines.text import CLIPEncoder, Conditions, Texts
from fdiff.plan import Plan, edm
from fdiff.prompts import Encoded, Tokens
from fdiff.rows import each_row

LEVEL = 64  # how many ones and zeros stand for the noise level of the picture, which is none


@dataclasses.dataclass(frozen=True)
class LatentUpscale(Guided, Resized, Latents):
    """Pictures twice as large."""

    image: Pictures = option(
        None,
        "the picture, or its latents, as output_type='latent' gives them: PIL, uint8 or float, one for all prompts or "
        "one for each",
    )
    _: KW_ONLY
    guidance_scale: Scale = option(9.0)
    num_inference_steps: int = option(75)


@dataclasses.dataclass(frozen=True)
class UnnormalizedEncoder(CLIPEncoder):
    """A text encoder read before its last norm, and its pooled vector after it."""

    def encode(self, pipe: Any, params: Params, tokens: Tokens, clip_skip: int = 0) -> Encoded:
        """What leaves the last layer."""
        lora = params.get("lora", {}).get(self.model)
        return _last_states(getattr(pipe, self.model), params[self.model], tokens, lora)


@partial(jax.jit, static_argnums=0)
def _last_states(model: Any, params: Any, tokens: Tokens, lora: Any) -> Encoded:
    variables = {"params": params} | ({} if lora is None else {"lora": lora})
    output = model.apply(variables, jnp.asarray(tokens.ids)[:, 0])
    return Encoded(output.hidden_states[-1], output.pooler_output)


class Guides(NamedTuple):
    """Guidance is needed though the U-Net has a time_cond_proj_dim, which tells it something else."""

    guides: bool


def untold() -> Guides:
    """Stage: what the U-Net is told beside the time is not a guidance scale."""
    return Guides(True)


def preconditioned(plan: Plan) -> Planned:
    """Stage: the table for a network that is told log(sigma) / 4 and speaks of x as Karras et al. 2022 have it, with
    data of deviation 1.

        x0 = x / (sigma^2 + 1) + sigma / sqrt(sigma^2 + 1) out
    """
    pairs = [edm(1.0)(1.0, float(sigma)) for sigma in plan.sigma]
    of = np.asarray(pairs, np.float32)
    return Planned(dataclasses.replace(plan, t=np.log(plan.sigma) / 4, x0_of=of[:, 0], eps_of=of[:, 1]))


class BegunLarger(NamedTuple):
    """The first x, the draws of the steps, and what the U-Net sees of the picture."""

    x: jax.Array
    draws: Draws
    appended: jax.Array


def beside_larger(
    vae: AutoencoderKL, params: Params, plan: Plan, image: np.ndarray, size: Size, texts: Texts, latents: Any,
    key: Key, torch_seed: Seed,
) -> BegunLarger:  # fmt: skip
    """Stage: begin with noise twice as large as the picture's latents, each of which becomes four."""
    inputs.check_number("image", image, texts.batch_size, texts.prompts)
    shape = (texts.batch_size, 2 * size[0], 2 * size[1], vae.latent_channels)
    encoded = Wanted((*size, vae.latent_channels), 0 if inputs.holds_latents(vae, image) else len(image))
    noise = Wanted(shape[1:], None if latents is None else 0)
    draws = draw_as_asked(key, torch_seed, plan, shape, texts.dtype, encoded, noise)
    small = inputs.latents_of(vae, params, image, draws.arrays[0], texts.batch_size)
    x = draws.arrays[1] if latents is None else latent.checked_latents(latents, shape)
    return BegunLarger(plan.start * x, draws, small.repeat(2, axis=1).repeat(2, axis=2))


def conditions(texts: Texts, appended: jax.Array) -> Conditions:
    """Stage: the tokens, and the pooled vector behind the level of the picture's noise."""

    def condition(side: Encoded, attention: Any) -> Condition:
        level = jnp.concatenate([jnp.ones((texts.batch_size, LEVEL)), jnp.zeros((texts.batch_size, LEVEL))], axis=-1)
        told = each_row(side.pooled, lambda pooled: jnp.concatenate([level, pooled.astype(jnp.float32)], axis=-1))
        return Condition(side.embeddings, scale=told, appended=appended, attention=attention)

    sides = zip((texts.positive, texts.negative), texts.attention, strict=True)
    positive, negative = (each(side, partial(condition, attention=attention)) for side, attention in sides)
    return Conditions((positive, negative))


def denoising(unet: Any, params: Params, both: Both) -> Denoising:
    """Stage: the U-Net without its last channel, a variance that nobody reads."""
    return Denoising(Partial(_without_variance, denoiser(unet, params)), both)


def _without_variance(network: guidance.Conditional, x: jax.Array, t: jax.Array, condition: Any) -> jax.Array:
    return network(x, t, condition)[..., : x.shape[-1]]


upscaling = Task(
    LatentUpscale,
    (untold, pictured, planned, preconditioned, *READING, beside_larger, conditions, denoising, guided), pictures,
    "Draw a picture twice as large.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class StableDiffusionLatentUpscalePipeline(StableDiffusion):
    """Pictures twice as large, with stabilityai/sd-x2-latent-upscaler."""

    encoders: ClassVar[tuple[Any, ...]] = (UnnormalizedEncoder(),)

    __call__, steps = upscaling.methods()
