"""Hugging Face's own Flax weights, flax_model.msgpack and diffusion_flax_model.msgpack, under torch's names.

They are a msgpack tree of dicts whose leaves are arrays. Only the places of the arrays are noted; nothing of
the file runs, and none of its numbers are read.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from convert import files, names, views
from convert.tensors import DTYPES, Tensor, check_shape

NAMES = ("diffusion_flax_model.msgpack", "flax_model.msgpack")
NUMBERED = re.compile(r"(?<!linear)_(\d+)$")  # down_blocks_0 is down_blocks.0, but linear_1 is linear_1
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
MOST = 250_000  # arrays in a file
DEEPEST = 50  # modules in one another
LONGEST = 10_000  # bytes of a name
ARRAY = 1  # what Flax calls an array among the extensions of msgpack


def tensors(file: str | Path) -> dict[str, Tensor]:
    """The tensors of a file under torch's names and in torch's layouts; none is read.

    Raises ValueError for a file that is not one of Flax, or is damaged.
    """
    file = Path(file)
    files.check_whole(file)
    found: dict[str, Tensor] = {}
    try:
        with files.reading(file), open(file, "rb") as stream:
            for i, (path, tensor) in enumerate(_tree(stream, file, ())):
                if i == MOST:
                    raise ValueError("more arrays than a model has")
                if tensor is None:
                    continue
                *modules, leaf = path
                name = ".".join([*(NUMBERED.sub(r".\1", module) for module in modules), LEAVES.get(leaf, leaf)])
                if name in found:
                    raise ValueError("two arrays of one name")
                names.check([name], file)
                found[name] = _in_torch_layout(tensor) if leaf == "kernel" else tensor
            if stream.read(1):
                raise ValueError("more than one tree")
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(f"{file} is no weights file of Flax, or is damaged; download or copy it again.") from error
    return found


def _in_torch_layout(tensor: Tensor) -> Tensor:
    """(..., in, out) -> (out, in, ...)."""
    ndim = len(tensor.shape)
    if ndim < 2:
        raise ValueError("a kernel has two axes or more")
    return views.permuted(tensor, (ndim - 1, ndim - 2, *range(ndim - 2)))


def _tree(stream: IO[bytes], file: Path, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Tensor | None]]:
    """The arrays of one msgpack value, a map of such values or an array, with their paths; None for an empty map."""
    code = _number(stream, 1)
    if (0x80 <= code < 0x90 or code in (0xDE, 0xDF)) and len(path) < DEEPEST:
        count = code & 0x0F if code < 0x90 else _number(stream, 2 << (code - 0xDE))
        if not count:
            yield path, None
        for _ in range(count):
            yield from _tree(stream, file, (*path, _text(stream)))
    elif code in (0xC7, 0xC8, 0xC9):  # an extension, with its length in 1, 2 or 4 bytes
        yield path, _array(stream, file, _number(stream, 1 << (code - 0xC7)))
    elif 0xD4 <= code < 0xD9:
        yield path, _array(stream, file, 1 << (code - 0xD4))
    else:
        raise ValueError("a value that no weights file has")


def _array(stream: IO[bytes], file: Path, length: int) -> Tensor:
    """An extension of Flax: a list of shape, name of the dtype and bytes."""
    kind, start = _number(stream, 1), stream.tell()
    if kind != ARRAY or _number(stream, 1) != 0x93:
        raise ValueError("an extension that is no array")
    axes = _number(stream, 1)
    if not 0x90 <= axes < 0xA0:
        raise ValueError("a shape that is no list")
    shape = tuple(_whole(stream) for _ in range(axes & 0x0F))
    name = _text(stream)
    dtype = DTYPES["bfloat16" if name == "V2" else name]
    code = _number(stream, 1)
    if not 0xC4 <= code <= 0xC6:
        raise ValueError("an array without bytes")
    size = _number(stream, 1 << (code - 0xC4))
    offset = stream.tell()
    if size != check_shape(shape, dtype) or offset + size != start + length:
        raise ValueError("an array of another size than it says")
    if stream.seek(offset + size) > os.fstat(stream.fileno()).st_size:
        raise ValueError("cut short")
    return Tensor(file, offset, dtype, shape)


def _whole(stream: IO[bytes]) -> int:
    """A whole number that is not negative."""
    code = _number(stream, 1)
    if code < 0x80:
        return code
    if not 0xCC <= code <= 0xCF:
        raise ValueError("no whole number")
    return _number(stream, 1 << (code - 0xCC))


def _text(stream: IO[bytes]) -> str:
    """A text, such as a key of a map."""
    code = _number(stream, 1)
    if 0xA0 <= code < 0xC0:
        return _bytes(stream, code & 0x1F).decode()
    if not 0xD9 <= code <= 0xDB:
        raise ValueError("no text")
    return _bytes(stream, _number(stream, 1 << (code - 0xD9))).decode()


def _number(stream: IO[bytes], size: int) -> int:
    return int.from_bytes(_bytes(stream, size))


def _bytes(stream: IO[bytes], size: int) -> bytes:
    if size > LONGEST:
        raise ValueError("a name that no module has")
    data = stream.read(size)
    if len(data) != size:
        raise ValueError("cut short")
    return data
