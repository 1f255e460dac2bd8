"""Hugging Face's own Flax weights, flax_model.msgpack and diffusion_flax_model.msgpack, under torch's names.

They are a msgpack tree of dicts whose leaves are arrays. Only the places of the arrays are noted; nothing of
the file runs, and none of its numbers are read.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np

from convert import files, views
from convert.tensors import Tensor

NAMES = ("diffusion_flax_model.msgpack", "flax_model.msgpack")
NUMBERED = re.compile(r"(?<!linear)_(\d+)$")  # down_blocks_0 is down_blocks.0, but linear_1 is linear_1
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
ARRAY = 1  # what Flax calls an array among the extensions of msgpack


def tensors(file: str | Path) -> dict[str, Tensor]:
    """The tensors of a file under torch's names and in torch's layouts; none is read.

    Raises ValueError for a file that is not one of Flax, or is damaged.
    """
    file = Path(file)
    files.check_whole(file)
    try:
        with files.reading(file), open(file, "rb") as stream:
            tree = _value(stream, file)
            if stream.read(1) or not isinstance(tree, dict):
                raise ValueError("not one tree")
        size = file.stat().st_size
        found = {}
        for path, tensor in _flatten(tree):
            if tensor.offset + int(np.prod(tensor.shape)) * tensor.dtype.itemsize > size:
                raise ValueError("cut short")
            *modules, leaf = path
            name = ".".join([*(NUMBERED.sub(r".\1", module) for module in modules), LEAVES.get(leaf, leaf)])
            found[name] = _in_torch_layout(tensor) if leaf == "kernel" else tensor
        return found
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError) as error:
        raise ValueError(f"{file} is no weights file of Flax, or is damaged; download or copy it again.") from error


def _in_torch_layout(tensor: Tensor) -> Tensor:
    """(..., in, out) -> (out, in, ...)."""
    ndim = len(tensor.shape)
    return views.permuted(tensor, (ndim - 1, ndim - 2, *range(ndim - 2)))


def _flatten(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    if isinstance(tree, Tensor):
        yield path, tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from _flatten(value, (*path, key))
    else:
        raise TypeError("a leaf that is no array")


def _value(stream: IO[bytes], file: Path) -> Any:
    """Read one msgpack value: a dict, list, text, whole number or array."""
    code = _number(stream, 1)
    if code < 0x80:
        return code
    if code < 0x90:
        return _dict(stream, file, code & 0x0F)
    if code < 0xA0:
        return [_value(stream, file) for _ in range(code & 0x0F)]
    if code < 0xC0:
        return _bytes(stream, code & 0x1F).decode()
    match code:
        case 0xC7 | 0xC8 | 0xC9:  # an extension, with its length in 1, 2 or 4 bytes
            return _array(stream, file, _number(stream, 1 << (code - 0xC7)))
        case 0xCC | 0xCD | 0xCE | 0xCF:
            return _number(stream, 1 << (code - 0xCC))
        case 0xD4 | 0xD5 | 0xD6 | 0xD7 | 0xD8:
            return _array(stream, file, 1 << (code - 0xD4))
        case 0xD9 | 0xDA | 0xDB:
            return _bytes(stream, _number(stream, 1 << (code - 0xD9))).decode()
        case 0xDC | 0xDD:
            return [_value(stream, file) for _ in range(_number(stream, 2 << (code - 0xDC)))]
        case 0xDE | 0xDF:
            return _dict(stream, file, _number(stream, 2 << (code - 0xDE)))
    raise ValueError("a value that no weights file has")


def _dict(stream: IO[bytes], file: Path, count: int) -> dict[str, Any]:
    found = {}
    for _ in range(count):
        key = _value(stream, file)
        if not isinstance(key, str):
            raise TypeError("a key that is no text")
        found[key] = _value(stream, file)
    return found


def _array(stream: IO[bytes], file: Path, length: int) -> Tensor:
    """An extension of Flax: a list of shape, name of the dtype and bytes."""
    kind, start = _number(stream, 1), stream.tell()
    if kind != ARRAY or _number(stream, 1) != 0x93:
        raise ValueError("an extension that is no array")
    shape, name = _value(stream, file), _value(stream, file)
    code = _number(stream, 1)
    if not 0xC4 <= code <= 0xC6:
        raise ValueError("an array without bytes")
    size = _number(stream, 1 << (code - 0xC4))
    dtype = np.dtype(ml_dtypes.bfloat16) if name in ("bfloat16", "V2") else np.dtype(name)
    shape = tuple(int(number) for number in shape)
    offset = stream.tell()
    if dtype.hasobject or size != int(np.prod(shape)) * dtype.itemsize or offset + size != start + length:
        raise ValueError("an array of another size than it says")
    stream.seek(offset + size)
    return Tensor(file, offset, dtype, shape)


def _number(stream: IO[bytes], size: int) -> int:
    return int.from_bytes(_bytes(stream, size))


def _bytes(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise ValueError("cut short")
    return data
