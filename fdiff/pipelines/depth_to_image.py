"""Pictures from a picture, its depth and text, with Stable Diffusion 2's depth model: its stages.

The depth is an input: no depth estimator is part of fdiff. The pure function is `image_to_image`, the depth being
appended in both conditions.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from fdiff.pipelines import inputs
from fdiff.pipelines.checks import numeric
from fdiff.pipelines.requests import Picture, Size
from fdiff.pipelines.task import option
from fdiff.pipelines.text import Texts


@dataclasses.dataclass(frozen=True)
class Deep(Picture):
    """Pictures from a picture, its depth and text."""

    depth_map: Any = option(None, "(h, w) or (b, h, w), of any size and unit, one for all prompts or one for each")


class Depth(NamedTuple):
    """The depth at the size of the latents, (b, h, w, 1)."""

    depth: np.ndarray


def at_depth(depth_map: Any, size: Size) -> Depth:
    """Stage: the depth of the picture. Raises ValueError where there is none."""
    if depth_map is None:
        raise ValueError("depth_map is missing; fdiff estimates no depth, so pass that of the picture as an array")
    return Depth(depth_channel(depth_map, *size))


class Appended(NamedTuple):
    """What the U-Net sees besides x."""

    appended: jax.Array


def deep(depth: np.ndarray, texts: Texts) -> Appended:
    """Stage: the depth for each of the batch."""
    inputs.check_number("depth_map", depth, texts.batch_size, texts.prompts)
    return Appended(inputs.spread("depth_map", depth, texts.batch_size))


def depth_channel(depth_map: Any, height: int, width: int) -> np.ndarray:
    """Depth (b, h, w), in any unit, brought to latents and to [-1, 1]: (b, height, width, 1).

    Near or far may be large, as the model that estimates it has it; fdiff has none: those of the Hub (MiDaS, DPT) do.
    """
    depth = np.asarray(depth_map)
    depth = depth[None] if depth.ndim == 2 else depth
    if depth.ndim != 3 or not depth.size or not numeric(depth):
        raise ValueError(f"depth_map has shape {depth.shape} and holds {depth.dtype}; it must be finite numbers "
                         "(height, width), or (batch, height, width)")
    depth = depth.astype(np.float32)
    rows, columns = cubic_weights(depth.shape[1], height), cubic_weights(depth.shape[2], width)
    depth = np.einsum("yh,bhw,xw->byx", rows, depth, columns)
    low, high = depth.min((1, 2), keepdims=True), depth.max((1, 2), keepdims=True)
    if np.any(high == low):
        raise ValueError("depth_map is the same everywhere, so it says nothing; pass the depth of the picture")
    return (2 * (depth - low) / (high - low) - 1)[..., None].astype(np.float32)


def cubic_weights(size: int, wanted: int) -> np.ndarray:
    """(wanted, size): cubic interpolation along an axis (Keys 1981, a = -0.75), edges repeated, nothing smoothed."""
    places = (np.arange(wanted) + 0.5) * size / wanted - 0.5
    taps = np.floor(places).astype(int)[:, None] + np.arange(-1, 3)
    d, a = np.abs(places[:, None] - taps), -0.75
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    weights = np.where(d <= 1, near, a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a)
    matrix = np.zeros((wanted, size))
    np.add.at(matrix, (np.arange(wanted)[:, None], np.clip(taps, 0, size - 1)), weights)
    return matrix
