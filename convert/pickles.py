"""torch's .bin, .pt and .ckpt files, read without torch and without running anything that is in them.

A pickle is a program: here it drives a small stack machine that can build containers, numbers, text and
tensors, and stand-ins for what training leaves beside them. Any other name of Python stops it with an error
that says it.
Both formats of torch are read: the zip file of today, and the run of pickles from before torch 1.6.
"""

import pickletools
import re
import struct
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from convert import files
from convert.pickle_names import Global, Inert, Refused, Storage, dictionary, expect, keys, named, whole
from convert.tensors import Tensor

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def tensors(file: str | Path) -> dict[str, Tensor]:
    """The tensors of a state dict by name; a checkpoint that keeps it under "state_dict" is looked into.

    Raises ValueError where the file holds more than data, is damaged or holds no tensor by name.
    """
    data = load(file)
    if isinstance(data, dict) and isinstance(data.get("state_dict"), dict):
        data = data["state_dict"]
    items = data.items() if isinstance(data, dict) else ()
    found = {name: value for name, value in items if isinstance(name, str) and isinstance(value, Tensor)}
    if not found:
        raise ValueError(f"{file} holds no tensors by name; save a state dict in it.")
    return found


def load(file: str | Path) -> Any:
    """What torch.load would return, with a `Tensor` for each tensor, not yet read; errors as in `tensors`."""
    file = Path(file)
    with files.reading(file), open(file, "rb") as stream:
        try:
            return _zip(file) if stream.read(2) == b"PK" else _legacy(file, stream)
        except Refused as refused:
            raise ValueError(f"{file} {refused}.") from None
        except Exception as error:  # whatever zipfile and pickletools, or a value where no such one belongs, raise
            raise ValueError(f"{file} is damaged, or no file of torch; download or copy it again.") from error


Locate = Callable[[str, int], int]  # (key of a storage, its bytes) -> offset in the file


def _zip(file: Path) -> Any:
    with zipfile.ZipFile(file) as archive:
        pickle = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if pickle is None:
            raise Refused("is a zip file that torch did not write; look for the weights in it")
        root = pickle.removesuffix("data.pkl")
        entries = {info.filename: info for info in archive.infolist()}
        if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
            raise Refused("is compressed, which torch does not do; save it with torch again")
        if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
            raise Refused("is big-endian; save it on another machine")

        def locate(key: str, nbytes: int) -> int:
            info = entries[f"{root}data/{key}"]
            if info.file_size < nbytes:
                raise ValueError("a storage is smaller than its tensors")
            with open(file, "rb") as stream:
                stream.seek(info.header_offset)
                lengths = struct.unpack("<4s22xHH", stream.read(30))
            return info.header_offset + 30 + lengths[1] + lengths[2]

        with archive.open(pickle) as stream:
            return _run(stream, file, locate)


def _legacy(file: Path, stream: IO[bytes]) -> Any:
    """Magic number, version, system, the object, the keys of its storages, then the storages in that order.

    Where a storage lies is known only after the object, so the object is built twice.
    """
    stream.seek(0)
    sizes: dict[str, int] = {}

    def nowhere(key: str, nbytes: int) -> int:
        sizes[key] = nbytes
        return 0

    magic, _, system = (_run(stream, file, nowhere) for _ in range(3))
    if magic != LEGACY_MAGIC:
        raise Refused("is a pickle that torch did not write; save it with torch or as safetensors")
    if not system["little_endian"]:
        raise Refused("is big-endian; save it on another machine")
    start = stream.tell()
    _run(stream, file, nowhere)
    offsets: dict[str, int] = {}
    keys = _run(stream, file, nowhere)
    end = stream.tell()
    for key in keys:
        offsets[key] = end + 8  # a storage begins with the number of its elements
        end += 8 + sizes[key]
    if end > file.stat().st_size:
        raise ValueError("cut short")
    stream.seek(start)
    return _run(stream, file, lambda key, nbytes: offsets[key])


def _run(stream: IO[bytes], file: Path, locate: Locate) -> Any:
    """Run one pickle on a stack machine that knows only what torch's checkpoints need."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}

    def pop(count: int) -> list[Any]:
        if count > len(stack):
            raise IndexError("the stack is empty")
        items = stack[len(stack) - count :]
        del stack[len(stack) - count :]
        return items

    def pop_mark() -> list[Any]:
        return pop(len(stack) - marks.pop())

    arg: Any
    for opcode, arg, _ in pickletools.genops(stream):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case name if VALUE.fullmatch(name):
                stack.append(arg)
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(pop(int(opcode.name[-1]))))
            case "TUPLE":
                stack.append(tuple(pop_mark()))
            case "EMPTY_LIST":
                stack.append([])
            case "LIST":
                stack.append(pop_mark())
            case "APPEND":
                (item,) = pop(1)
                expect(stack[-1], list | Inert).append(item)
            case "APPENDS":
                items = pop_mark()
                expect(stack[-1], list | Inert).extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                stack.append(dictionary(_pairs(pop_mark())))
            case "SETITEM":
                pair = pop(2)
                expect(stack[-1], dict | Inert).update(dictionary([pair]))
            case "SETITEMS":
                items = pop_mark()
                expect(stack[-1], dict | Inert).update(dictionary(_pairs(items)))
            case "EMPTY_SET":
                stack.append(set())
            case "FROZENSET":
                stack.append(frozenset(keys(pop_mark())))
            case "ADDITEMS":
                items = pop_mark()
                expect(stack[-1], set | Inert).update(keys(items))
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[arg] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[arg])
            case "DUP":
                stack.append(stack[-1])
            case "POP":
                stack.pop()
            case "POP_MARK":
                pop_mark()
            case "GLOBAL":
                stack.append(named(*arg.split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(named(*pop(2)))
            case "REDUCE":
                function, args = pop(2)
                stack.append(expect(function, Global).call(*expect(args, tuple)))
            case "INST":
                stack.append(named(*arg.split(" ", 1)).call(*pop_mark()))
            case "NEWOBJ" | "NEWOBJ_EX":
                function, args, *_ = pop(2 if opcode.name == "NEWOBJ" else 3)
                stack.append(expect(function, Global).call(*expect(args, tuple)))
            case "BUILD":  # attributes of an OrderedDict (_metadata) or of a tensor: not data
                pop(1)
                expect(stack[-1], dict | Tensor | Inert)
            case "BINPERSID":
                stack.append(_storage(expect(stack.pop(), tuple), file, locate))
            case _:
                raise Refused(f"is a pickle with {opcode.name}, which no checkpoint needs; do not trust it")
    raise EOFError


VALUE = re.compile(r"(BIN)?INT[12]?|LONG[14]?|(BIN)?FLOAT|(SHORT_)?(BIN)?(STRING|BYTES|BYTEARRAY|UNICODE)8?")


def _pairs(items: list[Any]) -> Iterable[Any]:
    return zip(items[::2], items[1::2], strict=True)


def _storage(key: tuple[Any, ...], file: Path, locate: Locate) -> Storage:
    """A storage by its persistent id: ("storage", type, key, device, elements[, None])."""
    kind, storage_type, name, _, count = key[:5]
    if kind != "storage" or any(part is not None for part in key[5:]):
        raise Refused("is from before torch 0.4; save it with a newer torch")
    dtype = expect(expect(storage_type, Global).value, np.dtype)
    nbytes = whole(count) * dtype.itemsize
    offset = locate(expect(name, str), nbytes)
    if offset + nbytes > file.stat().st_size:
        raise ValueError("a storage is larger than the file")
    return Storage(file, offset, dtype, nbytes)
