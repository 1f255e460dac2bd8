"""torch's axes and Flax's, and a parameter's path and its torch name.

Both follow from the name of the leaf in the Flax tree, never from the shape of the tensor:

    leaf                torch's leaf   layout
    kernel              weight         torch's first two axes, (out, in), become the last two, (in, out)
    kernel_v            weight_v       the same: the direction of a kernel whose length is a number of its own
    scale, embedding    weight         as it is
    any other           the same       as it is; an _ at its end is left out: scale_ is what torch calls scale

So a linear kernel (out, in) becomes (in, out), and a convolution's (out, in, h, w) becomes (h, w, in, out),
for any number of spatial axes and groups. torch keeps the weight of a *transposed* convolution as that of the
convolution which it transposes, (in, out, h, w); under the same rule it becomes (h, w, out, in), and that is
what `nn.ConvTranspose(transpose_kernel=True)` and `lax.conv_transpose(..., transpose_kernel=True)` read.
"""

from typing import Any

import numpy as np

Path = tuple[str, ...]

KERNELS = {"kernel": "weight", "kernel_v": "weight_v"}
ALIGNMENT = 64  # bytes: XLA's CPU takes an array that begins at a multiple of it as it is, without a copy
TILE = 128  # rows and columns: a square of numbers that stays in the cache while it is turned


def torch_name(path: Path) -> str:
    """("mid_block", "resnets.0", "conv1", "kernel") -> "mid_block.resnets.0.conv1.weight"."""
    leaf = "weight" if path[-1] in ("scale", "embedding") else KERNELS.get(path[-1], path[-1].removesuffix("_"))
    return ".".join((*path[:-1], leaf))


def torch_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that torch has for the parameter of that path and shape."""
    if path[-1] not in KERNELS:
        return shape
    return (shape[-1], shape[-2], *shape[:-2])


def from_torch(path: Path, array: np.ndarray) -> np.ndarray:
    """A view of torch's array in the layout of the parameter."""
    return np.moveaxis(array, (0, 1), (-1, -2)) if path[-1] in KERNELS else array


def to_torch(path: Path, array: np.ndarray) -> np.ndarray:
    """A view of the parameter in torch's layout: the inverse of `from_torch`."""
    return np.moveaxis(array, (-1, -2), (0, 1)) if path[-1] in KERNELS else array


def copied(array: np.ndarray, dtype: Any) -> np.ndarray:
    """The array, row-major, in `dtype` and in aligned memory of its own: one copy, tile by tile of its last two axes.

    Turning a kernel reads it in one order and writes it in another; a tile at a time is twice as quick as row by row.
    """
    dtype = np.dtype(dtype)
    size = array.size * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    made = memory[start:start + size].view(dtype).reshape(array.shape)
    source, target = array, made
    if array.dtype == dtype and dtype.itemsize <= 8:  # as plain bits, which NumPy copies quicker than half precision
        bits = f"u{dtype.itemsize}"
        source, target = array.view(bits), made.view(bits)
    if array.ndim < 2 or array.flags.c_contiguous:
        np.copyto(target, source, casting="unsafe")
        return made
    rows, columns = array.shape[-2:]
    for i in range(0, rows, TILE):
        for j in range(0, columns, TILE):
            tile = (..., slice(i, i + TILE), slice(j, j + TILE))
            np.copyto(target[tile], source[tile], casting="unsafe")
    return made
