"""A tensor that lies in a file: what every reader returns and what `weights` fills a tree from."""

import math
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import ml_dtypes  # noqa: F401  whose dtypes NumPy then knows by name
import numpy as np

from convert import files

AXES = 64  # of NumPy's arrays and torch's tensors, at most

FLOATS = ("float16", "float32", "float64", "bfloat16")  # which JAX computes in
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
EIGHT_BITS = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")  # only stored
DTYPES = {
    name: np.dtype(name) for name in (*FLOATS, *EIGHT_BITS, *INTEGERS, "bool", "complex64", "complex128")
}  # fmt: skip


class Tensor(NamedTuple):
    """Where a tensor lies, and how; nothing is read before `read`.

    `offset` is in bytes from the start of the file, `strides` in elements (None: row-major). A slice, a split
    or a transpose of it is therefore another Tensor.
    """

    file: Path
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None

    def read(self) -> np.ndarray:
        """The numbers, in memory of their own. ValueError if the file ends before they do."""
        count = span(self.shape, self.strides)
        with files.reading(self.file):
            data = np.fromfile(self.file, np.uint8, count * self.dtype.itemsize, offset=self.offset)
        if data.size < count * self.dtype.itemsize:
            raise ValueError(f"{self.file} is cut short; download or copy it again.")
        if self.strides is None:
            return data.view(self.dtype).reshape(self.shape)
        strides = [stride * self.dtype.itemsize for stride in self.strides]
        array: np.ndarray = np.ndarray(self.shape, self.dtype, data, strides=strides)
        array.flags.writeable = False  # several elements may be one
        return array


def check_shape(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """The bytes of an array of that shape. ValueError for one that no file and no memory can hold."""
    if len(shape) > AXES:
        raise ValueError("more axes than arrays have")
    if math.prod(max(size, 1) for size in shape) * dtype.itemsize >= 2**63:
        raise ValueError("more numbers than there can be")
    return math.prod(shape) * dtype.itemsize


def check_floating(name: str, tensor: Tensor, file: str | PathLike[str]) -> None:
    """ValueError unless a tensor that is wanted as weights holds real numbers: 0.5 is not 1056964608."""
    if tensor.dtype.name not in (*FLOATS, *EIGHT_BITS):
        raise ValueError(
            f"{name} in {file} holds {tensor.dtype} instead of floating point numbers; "
            "choose a file whose weights are neither quantised nor packed."
        )


def span(shape: tuple[int, ...], strides: tuple[int, ...] | None = None) -> int:
    """How many elements of a storage lie between a tensor's first and last, both counted."""
    if strides is None or 0 in shape:
        return math.prod(shape)
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
