"""torch's interpolate for channels-last arrays: what makes x larger between the steps of a scale-wise run."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

AXES = {"nearest": (1, 2, 3), "nearest-exact": (1, 2, 3), "area": (1, 2, 3),
        "linear": (1,), "bilinear": (2,), "bicubic": (2,), "trilinear": (3,)}


def upscale(x: jax.Array, size: Sequence[int], mode: str) -> jax.Array:
    """x (b, *spatial, c) with its spatial axes made `size`, as torch's interpolate does without antialiasing.

    Every mode is a matrix for each axis, made on the host: jax.image has neither torch's bicubic (a = -0.75, borders
    repeated) nor its area. Raises ValueError for an unknown mode, or one that is not for that many axes.
    """
    if mode not in AXES:
        raise ValueError(f"upscale_mode is {mode!r}; it must be one of {', '.join(AXES)}")
    if len(size) not in AXES[mode]:
        raise ValueError(f"upscale_mode {mode!r} is not for {len(size)} spatial axes; use one that is, or 'nearest'")
    for axis, wanted in enumerate(size, start=1):
        matrix = jnp.asarray(_matrix(x.shape[axis], wanted, mode), x.dtype)
        enlarged = jnp.tensordot(x, matrix, axes=(axis, 1), precision=jax.lax.Precision.HIGHEST)
        x = jnp.moveaxis(enlarged, -1, axis)
    return x


def _matrix(old: int, new: int, mode: str) -> np.ndarray:
    """(new, old): how much of each old pixel is in each new one."""
    matrix = np.zeros((new, old))
    for row, weights in enumerate(matrix):
        if mode == "nearest":
            weights[row * old // new] = 1
        elif mode == "nearest-exact":
            weights[(2 * row + 1) * old // (2 * new)] = 1
        elif mode == "area":
            covered = slice(row * old // new, -(-(row + 1) * old // new))
            weights[covered] = 1 / (covered.stop - covered.start)
        else:
            middle = (row + 0.5) * old / new - 0.5
            reach, kernel = (2, _cubic) if mode == "bicubic" else (1, _triangle)
            for pixel in range(math.floor(middle) - reach + 1, math.floor(middle) + reach + 1):
                weights[min(max(pixel, 0), old - 1)] += kernel(abs(middle - pixel))
    return matrix


def _triangle(distance: float) -> float:
    return max(1 - distance, 0.0)


def _cubic(d: float, a: float = -0.75) -> float:
    """Keys' kernel (1981, eq. 4) with torch's a."""
    if d <= 1:
        return ((a + 2) * d - (a + 3)) * d * d + 1
    return ((d - 5) * d + 8) * d * a - 4 * a if d < 2 else 0.0
