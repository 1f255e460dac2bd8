"""Pictures four times as large, with Stable Diffusion's x4 upscaler: the pure function, and its stages."""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import sampling
from fdiff.models import AutoencoderKL, UNet2DConditionModel
from fdiff.pipelines import denoise, inputs, latent
from fdiff.pipelines.denoise import Condition
from fdiff.pipelines.draws import Draws, Seed, Wanted, draw, draw_as_asked
from fdiff.pipelines.pipeline import Params
from fdiff.pipelines.requests import Guided, Latents, Pictures, Scale
from fdiff.pipelines.task import Key, option
from fdiff.pipelines.text import Conditions, Texts
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler


def upscale(
    unet: UNet2DConditionModel, vae: AutoencoderKL, low_res_scheduler: Scheduler, params: Params, plan: Plan,
    image: jax.Array, noise_level: jax.Array | int, condition: Condition, negative: Condition | None, key: jax.Array,
    *, guidance_scale: Scale = 9.0,
    remat: bool = False,
) -> jax.Array:  # fmt: skip
    """Draw pictures four times as large as `image` (b, h, w, 3) in [-1, 1]: a pure function.

    low_res_scheduler: how the small picture is noised; noise_level: how much, one of its timesteps. The others are
    those of `text_to_image`.
    """
    wanted = (Wanted(image.shape[1:]), Wanted((*image.shape[1:3], vae.latent_channels)))
    (for_image, noise), later, _ = draw(key, image.shape[0], *wanted)
    both = told(low_res_scheduler, (condition, negative), image, for_image, noise_level)
    network = denoise.guide(denoise.denoiser(unet, params), *both, guidance_scale)
    return latent.decoded(vae, params["vae"], sampling.sample(network, plan, plan.start * noise, later, remat=remat))


def told(
    low_res_scheduler: Scheduler, both: tuple[Condition, Condition | None], image: jax.Array, noise: jax.Array,
    noise_level: jax.Array | int,
) -> tuple[Condition, Condition | None]:  # fmt: skip
    """The conditions with the small picture, noised, and the noise level as the class."""
    levels = jnp.full(image.shape[0], noise_level, jnp.int32)
    noisy = low_res_scheduler.add_noise(image, noise, levels)
    condition, negative = (
        denoise.each(side, lambda one: one._replace(appended=noisy, labels=levels)) for side in both
    )
    return condition, negative


@dataclasses.dataclass(frozen=True)
class Upscale(Guided, Latents):
    """Pictures four times as large."""

    image: Pictures = option(
        None, "the small picture: PIL, uint8 or float in [-1, 1], (h, w, 3), one for all prompts or one for each"
    )
    _: KW_ONLY
    noise_level: int = option(
        20, "how much noise it gets before it is looked at, 0 to max_noise_level; more hides its flaws"
    )
    guidance_scale: Scale = option(9.0)
    num_inference_steps: int = option(75)


class Small(NamedTuple):
    """The small picture (b, h, w, 3)."""

    image: np.ndarray


def small(image: Pictures, noise_level: int, max_noise_level: int) -> Small:
    """Stage: the small picture. Raises ValueError for another number of channels, and a level that there is not."""
    if not isinstance(noise_level, int | np.integer) or not 0 <= noise_level <= max_noise_level:
        raise ValueError(f"noise_level is {noise_level!r}; it must be a whole number from 0 to {max_noise_level}")
    array = inputs.pictures("image", image)
    if array.shape[-1] != 3:
        raise ValueError(f"image has {array.shape[-1]} channels; it must have 3")
    inputs.check_range("image", array, -1.0)
    return Small(array)


class BegunBeside(NamedTuple):
    """The first x, the draws of the steps, the small picture for each of the batch, and its noise."""

    x: jax.Array
    draws: Draws
    image: jax.Array
    noise: jax.Array


def beside_small(
    vae: AutoencoderKL, plan: Plan, image: np.ndarray, texts: Texts, latents: Any, key: Key, torch_seed: Seed,
) -> BegunBeside:  # fmt: skip
    """Stage: begin with noise, and draw that of the small picture."""
    inputs.check_number("image", image, texts.batch_size, texts.prompts)
    each = inputs.spread("image", image, texts.batch_size)
    shape = (*each.shape[:3], vae.latent_channels)
    wanted = (Wanted(image.shape[1:], len(image)), Wanted(shape[1:], None if latents is None else 0))
    draws = draw_as_asked(key, torch_seed, plan, shape, texts.dtype, *wanted)
    noise = draws.arrays[1] if latents is None else latent.checked_latents(latents, shape)
    return BegunBeside(plan.start * noise, draws, each, draws.arrays[0])


def told_small(
    low_res_scheduler: Scheduler, both: tuple[Condition, Condition | None], image: Any, noise: Any, noise_level: int
) -> Conditions:
    """Stage: the conditions with the small picture."""
    return Conditions(told(low_res_scheduler, both, image, noise, noise_level))
