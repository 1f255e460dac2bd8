"""A tensor that lies in a file: what every reader returns and what `weights` fills a tree from."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np


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
        data = np.fromfile(self.file, np.uint8, count * self.dtype.itemsize, offset=self.offset)
        if data.size < count * self.dtype.itemsize:
            raise ValueError(f"{self.file} is cut short; download or copy it again.")
        array = data.view(self.dtype)
        if self.strides is None:
            return array.reshape(self.shape)
        strides = [stride * self.dtype.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(array, self.shape, strides, writeable=False)


def span(shape: tuple[int, ...], strides: tuple[int, ...] | None = None) -> int:
    """How many elements of a storage lie between a tensor's first and last, both counted."""
    if strides is None or 0 in shape:
        return math.prod(shape)
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
