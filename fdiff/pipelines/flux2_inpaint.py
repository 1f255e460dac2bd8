"""A part of a picture painted anew with FLUX.2 klein, which sees the picture, and others to keep to."""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff.models import AutoencoderKLFlux2
from fdiff.pipelines import inputs
from fdiff.pipelines.denoise import guided
from fdiff.pipelines.draws import Draws, Seed, Wanted, draw_as_asked
from fdiff.pipelines.flux2 import Asked, Klein, no_larger, planned, read, references_of
from fdiff.pipelines.image_to_image import noised
from fdiff.pipelines.inpaint import levels_after, masked, put_back
from fdiff.pipelines.latent import encoded, factor_of, pictures
from fdiff.pipelines.pipeline import Params, tree_of
from fdiff.pipelines.requests import Pictures, References, Repainted, Scale, Size
from fdiff.pipelines.task import Key, Task, option
from fdiff.pipelines.text import Counts
from fdiff.plan import Plan


@dataclasses.dataclass(frozen=True)
class KleinMasked(Repainted, Asked):
    """A part of a picture painted anew."""

    _: KW_ONLY
    strength: float = option(0.8)
    guidance_scale: Scale = option(8.0)
    image_reference: References = option(
        None, "pictures to keep to besides, one or a list, of any sizes: PIL, uint8 or float in [-1, 1], (h, w, 3)",
        flag=None,
    )


class Seen(NamedTuple):
    """The picture, its height and width in squares of latents and in pixels, and all pictures that are seen."""

    image: np.ndarray
    size: Size
    pixels: Size
    resized: bool  # whether it had another size before
    references: tuple[np.ndarray, ...]


def seen(vae: AutoencoderKLFlux2, image: Pictures, image_reference: References) -> Seen:
    """Stage: the picture, of whole squares of latents and no larger than the model knows, and others to keep to.

    Raises ValueError for what is no picture, and sizes that the squares do not divide.
    """
    step = factor_of(vae) * vae.patch_size[0]
    given = [no_larger(one) for one in image] if isinstance(image, list | tuple) else no_larger(image)
    found = inputs.pictured_by(step, vae, given, None, None)
    inputs.check_seen(vae, found.image, "transformer")
    size = found.pixels[0] // step, found.pixels[1] // step
    first = image[0] if isinstance(image, list | tuple) else image
    before = tuple(first.size[::-1]) if hasattr(first, "convert") else found.pixels
    others = references_of(image_reference, step)
    return Seen(found.image, size, found.pixels, before != found.pixels, (found.image, *others))


class Begun(NamedTuple):
    """The first x, the draws of the steps, and what becomes of x after each step."""

    x: jax.Array
    draws: Draws
    after: Any


def from_seen(
    vae: AutoencoderKLFlux2, params: Params, plan: Plan, image: np.ndarray, mask: np.ndarray, size: Size, texts: Counts,
    key: Key, torch_seed: Seed,
) -> Begun:  # fmt: skip
    """Stage: begin with the picture noised; what is not painted is put back after each step."""
    inputs.check_number("image", image, texts.batch_size, texts.prompts)
    inputs.check_number("mask_image", mask, texts.batch_size, texts.prompts)
    latents = inputs.spread("image", encoded(vae, tree_of(params, "vae"), jnp.asarray(image)), texts.batch_size)
    draws = draw_as_asked(key, torch_seed, plan, latents.shape, texts.dtype, Wanted(latents.shape[1:]))
    white = inputs.spread("mask_image", middles(mask, mask.shape[1] // size[0]), texts.batch_size)
    after = Partial(put_back, white, latents, draws.arrays[0], *levels_after(plan))
    return Begun(noised(plan, latents, draws.arrays[0]), draws, after)


def middles(mask: np.ndarray, step: int) -> np.ndarray:
    """The mean of the four pixels in the middle of each square of `step` pixels: (b, h, w, 1) -> (b, h', w', 1)."""
    rows = (mask[:, step // 2 - 1 :: step] + mask[:, step // 2 :: step]) / 2
    between: np.ndarray = (rows[:, :, step // 2 - 1 :: step] + rows[:, :, step // 2 :: step]) / 2
    return between


inpainting = Task(
    KleinMasked, (seen, masked, planned, read, from_seen, guided), pictures,
    "Paint a part of a picture anew with FLUX.2 klein.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Flux2KleinInpaintPipeline(Klein):
    """A part of a picture painted anew with FLUX.2 klein (Black Forest Labs 2025)."""

    __call__, steps = inpainting.methods()
