"""Pictures in the shapes of those in training, cut to the size that is asked for, as PixArt and Sana draw them."""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from fdiff.pipelines import inputs, latent
from fdiff.pipelines.latent import check_multiples, factor_of
from fdiff.pipelines.pipeline import Params
from fdiff.pipelines.requests import Pictures, Pixels, Size
from fdiff.pipelines.task import Request, option

ASKED = (
    "in pixels, what the model was trained on if not given; a multiple of 16, or with Sana of 32, without "
    "use_resolution_binning"
)
OWN = "in pixels, that of the picture if not given; a multiple of 32 without use_resolution_binning"
# Height and width of the pictures in training, in sixteenths of the square's side (Chen et al. 2023, appendix).
SHAPES = (
    (8, 32), (8, 29), (9, 28), (9, 27), (9, 26), (10, 25), (10, 24), (11, 23), (11, 22), (11, 21), (12, 21), (12, 20),
    (13, 19), (13, 18), (14, 18), (14, 17), (15, 17), (15, 16), (16, 16), (16, 15), (17, 15), (17, 14), (18, 14),
    (18, 13), (19, 13), (20, 12), (21, 12), (22, 11), (23, 11), (24, 10), (25, 10), (27, 9), (32, 8),
)  # fmt: skip
# Those of PixArt-Sigma and of Sana at 2048 x 2048 and above besides.
MORE_SHAPES = ((8, 31), (8, 30), (26, 9), (28, 9), (29, 8), (30, 8), (31, 8))
LARGE = 2048


@dataclasses.dataclass(frozen=True)
class Binned(Request):
    """How large, and in which shape it is drawn."""

    _: KW_ONLY
    height: Pixels = option(None, ASKED)
    width: Pixels = option(None, ASKED)
    use_resolution_binning: bool = option(
        True, "draw in the shape of those in training that is nearest, and cut the picture to what is asked for",
        flag=None,
    )  # fmt: skip


class Shaped(NamedTuple):
    """Height and width in latents, and what the picture is cut to, in pixels, if to anything."""

    size: Size
    around: dict[str, Any]


def shaped(vae: Any, transformer: Any, height: Pixels, width: Pixels, use_resolution_binning: bool) -> Shaped:
    """Stage: the size. Raises ValueError for one that is none, and for a model without such shapes."""
    factor, own, patch = factor_of(vae), transformer.sample_size, transformer.patch_size
    asked = [own * factor if side is None else side for side in (height, width)]
    if not use_resolution_binning:
        check_multiples(asked[0], asked[1], patch * factor)
        return Shaped((asked[0] // factor, asked[1] // factor), {})
    check_multiples(asked[0], asked[1], 1)
    high, wide = nearest_shape(own * factor, asked[0], asked[1])
    check_multiples(high, wide, patch * factor)
    return Shaped((high // factor, wide // factor), {"fit": (asked[0], asked[1])})


class PicturedInShape(NamedTuple):
    """The user's pictures, their height and width in latents and in pixels, and what is cut to, if to anything."""

    image: np.ndarray
    size: Size
    pixels: Size
    around: dict[str, Any]


def pictured_in_shape(
    vae: Any, transformer: Any, name: str, image: Pictures, height: Pixels, width: Pixels, use_resolution_binning: bool
) -> PicturedInShape:
    """Pictures of that name in the shape that is nearest to their own, or what is asked for; or latents, as they are.

    Raises ValueError for what is neither, and as `shaped` does.
    """
    factor, around = factor_of(vae), dict[str, Any]()
    if use_resolution_binning and not (hasattr(image, "shape") and inputs.holds_latents(vae, image)):
        own = inputs.pictures(name, image[0] if isinstance(image, list | tuple) and image else image).shape[1:3]
        height, width = (side if given is None else given for given, side in zip((height, width), own, strict=True))
        found = shaped(vae, transformer, height, width, True)
        (height, width), around = (side * factor for side in found.size), found.around
    taken = inputs.pictured_by(transformer.patch_size * factor, vae, image, height, width, name)
    return PicturedInShape(taken.image, taken.size, taken.pixels, around)


def nearest_shape(side: int, height: int, width: int) -> Size:
    """Height and width in pixels, of the pictures in training, whose quotient to two places is nearest to that.

    side: of the square among them, in pixels. Raises ValueError where it is no multiple of 256.
    """
    if side % 256:
        raise ValueError(f"the model is one of squares of {side} pixels, and pictures of several shapes are of models "
                         "of 256, 512, 1024, 2048 or 4096; pass use_resolution_binning=False")
    shapes = SHAPES + (MORE_SHAPES if side >= LARGE else ())
    high, wide = min(sorted(shapes, key=_quotient), key=lambda shape: abs(_quotient(shape) - height / width))
    return high * side // 16, wide * side // 16


def _quotient(shape: Size) -> float:
    return round(shape[0] / shape[1], 2)


@partial(jax.jit, static_argnums=1)
def covering(pictures: jax.Array, size: Size) -> jax.Array:
    """The middle of pictures (b, h, w, c), scaled to fill (height, width)."""
    own = pictures.shape[1:3]
    if own == size:
        return pictures
    scale = max(size[0] / own[0], size[1] / own[1])
    # Rounded down as in diffusers, but never to less than is asked for, as its quotients may.
    high, wide = (max(int(side * scale), least) for side, least in zip(own, size, strict=True))
    shape = (len(pictures), high, wide, pictures.shape[3])
    drawn = jax.image.resize(pictures, shape, "linear", antialias=False)
    top, left = (high - size[0]) // 2, (wide - size[1]) // 2
    return drawn[:, top : top + size[0], left : left + size[1]]


def decode(
    pipe: Any, params: Params, latents: jax.Array, tile_size: int | None = None, *, fit: Size | None = None
) -> jax.Array:
    """Pictures (b, H, W, 3) in [-1, 1], or nearly so, of latents, of which the middle fills `fit`, if given.

    tile_size: see `fdiff.pipelines.latent.decode`.
    """
    drawn = latent.decode(pipe, params, latents, tile_size)
    return drawn if fit is None else covering(drawn, fit)
