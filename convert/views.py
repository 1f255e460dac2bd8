"""Parts and permutations of a tensor that lies in a file; none of them reads anything."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from convert.packed import Packed
from convert.tensors import Tensor


class Made(NamedTuple):
    """A tensor that is made of what lies in a file when it is read."""

    file: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def strides(tensor: Tensor) -> tuple[int, ...]:
    """The strides of a tensor, in elements."""
    if tensor.strides is not None:
        return tensor.strides
    found, step = [], 1
    for size in reversed(tensor.shape):
        found.append(step)
        step *= size
    return tuple(reversed(found))


def rows(tensor: Tensor, start: int, stop: int) -> Tensor:
    """tensor[start:stop]. ValueError for one that is quantised in blocks which run across the cut."""
    if isinstance(tensor, Packed):
        return tensor.rows(start, stop)
    offset = tensor.offset + start * strides(tensor)[0] * tensor.dtype.itemsize
    return tensor._replace(offset=offset, shape=(stop - start, *tensor.shape[1:]))


def swapped(tensor: Any) -> Any:
    """The second half of the rows before the first one. ValueError as of `rows`."""
    if isinstance(tensor, Packed):
        return tensor.swapped()
    return Made(tensor.file, tensor.dtype, tensor.shape, lambda: np.roll(tensor.read(), tensor.shape[0] // 2, axis=0))


def permuted(tensor: Tensor, axes: Sequence[int]) -> Tensor:
    """tensor.transpose(axes)."""
    found = strides(tensor)
    return tensor._replace(
        shape=tuple(tensor.shape[axis] for axis in axes), strides=tuple(found[axis] for axis in axes)
    )


def squeezed(tensor: Tensor, ndim: int) -> Tensor:
    """The tensor without its axes from `ndim` on. ValueError unless these have length 1."""
    if set(tensor.shape[ndim:]) - {1}:
        raise ValueError(f"a tensor of shape {tensor.shape} has no {ndim} axes.")
    return tensor._replace(shape=tensor.shape[:ndim], strides=strides(tensor)[:ndim])
