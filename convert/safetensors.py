"""The safetensors format: 8 bytes of length, a JSON header, then the tensors one after another.

It is read and written here, not by the library of that name, so that one tensor at a time is in memory (the
library maps the whole file, whose pages then count as the process's own) and so that a forged header ends in
one sentence. Files are equal to the library's, byte for byte.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from convert import files, json_text, names
from convert.tensors import Tensor, check_shape

DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "I16": np.dtype(np.int16),
    "U16": np.dtype(np.uint16),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I32": np.dtype(np.int32),
    "U32": np.dtype(np.uint32),
    "F32": np.dtype(np.float32),
    "C64": np.dtype(np.complex64),
    "F64": np.dtype(np.float64),
    "I64": np.dtype(np.int64),
    "U64": np.dtype(np.uint64),
}
LARGEST_HEADER = 100_000_000  # bytes; the library refuses more
CURE = "download or copy it again"


def read(file: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, in the order in which they lie; only the header is read.

    Raises ValueError where the header is not exactly one of this format, and FileNotFoundError.
    """
    length, header, _ = _header(file)
    try:
        entries = {name: _entry(value) for name, value in header.items()}
        unknown = {name: code for name, (code, *_) in entries.items() if code not in DTYPES}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{file} has a damaged header; {CURE}.") from error
    names.check([*unknown, *unknown.values()], file)
    for name, code in unknown.items():
        raise ValueError(f"{file} holds {name} as {code}, which is not read; choose other weights, or {CURE}.")
    end = 0
    found = {}
    for name, (code, shape, start, stop) in sorted(entries.items(), key=lambda item: item[1][2:]):
        dtype = DTYPES[code]
        if start != end or stop - start != _nbytes(shape, dtype):
            raise ValueError(f"{file} has a damaged header at {name!a:.100}; {CURE}.")
        found[name] = Tensor(file, 8 + length + start, dtype, shape)
        end = stop
    if 8 + length + end != file.stat().st_size:
        raise ValueError(f"{file} is cut short, or has bytes of no tensor; {CURE}.")
    return found


def metadata(file: Path) -> dict[str, str]:
    """The texts in the header of a file. ValueError where the header is damaged."""
    return _header(file)[2]


def _header(file: Path) -> tuple[int, dict[str, Any], dict[str, str]]:
    """The bytes of the header, its entries, and its texts."""
    with files.reading(file), open(file, "rb") as stream:
        size = file.stat().st_size
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, LARGEST_HEADER):
            raise ValueError(f"{file} is no safetensors file, or is cut short; {CURE}.")
        try:
            header = json_text.parse(stream.read(length))
            texts = header.pop("__metadata__", None) or {}
            if not all(isinstance(part, str) for pair in texts.items() for part in pair):
                raise ValueError("metadata are texts")
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} has a damaged header; {CURE}.") from error
    return length, header, texts


def _entry(value: dict[str, Any]) -> tuple[str, tuple[int, ...], int, int]:
    start, stop = value["data_offsets"]
    shape = tuple(value["shape"])
    if any(type(number) is not int or number < 0 for number in (*shape, start, stop)):
        raise ValueError("sizes are whole numbers")
    if not isinstance(value["dtype"], str) or not isinstance(value["shape"], list):
        raise TypeError("a dtype is a text, a shape a list")
    return value["dtype"], shape, start, stop


def _nbytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """The bytes of that array, -1 for one that there cannot be."""
    try:
        return check_shape(shape, dtype)
    except ValueError:
        return -1


class Array(NamedTuple):
    """A tensor to be written: its shape and dtype are known, its numbers made when their turn comes."""

    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def write(file: Path, arrays: Mapping[str, Array], texts: Mapping[str, str] | None = None) -> None:
    """Write a file of those tensors, one at a time, and texts as its metadata.

    Raises ValueError for a dtype that the format does not have.
    """
    codes = {dtype: code for code, dtype in DTYPES.items()}
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(texts or {})}}
    end = 0
    for name in order:
        array = arrays[name]
        if array.dtype not in codes:
            raise ValueError(f"{name} is {array.dtype}, which safetensors cannot hold; cast it first.")
        offsets = [end, end + array.nbytes]
        header[name] = {"dtype": codes[array.dtype], "shape": list(array.shape), "data_offsets": offsets}
        end += array.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(file, "wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            stream.write(np.ascontiguousarray(arrays[name].make()).reshape(-1).view(np.uint8).data)
