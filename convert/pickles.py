"""torch's .bin, .pt and .ckpt files, read without torch and without running anything that is in them.

A pickle is a program: here it drives a small stack machine that can build containers, numbers, text and
tensors, and stand-ins for what training leaves beside them. Any other name of Python stops it with an error
that says it.
Both formats of torch are read: the zip file of today, and the run of pickles from before torch 1.6.
"""

import pickletools
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from convert import files, zips
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
            return _zip(file, stream) if stream.read(2) == b"PK" else _legacy(file, stream)
        except Refused as refused:
            raise ValueError(f"{file} {refused}.") from None
        except Exception as error:  # whatever pickletools, or a value where no such one belongs, raise
            raise ValueError(f"{file} is damaged, or no file of torch; download or copy it again.") from error


Locate = Callable[[str, int, int], int]  # (key of a storage, its elements, their bytes) -> offset in the file


def _zip(file: Path, stream: IO[bytes]) -> Any:
    try:
        entries = zips.entries(stream)
    except zips.Compressed:
        raise Refused("is compressed, which torch does not do; save it with torch again") from None
    pickle = next((name for name in entries if name.endswith("/data.pkl")), None)
    if pickle is None:
        raise Refused("is a zip file that torch did not write; look for the weights in it")
    root = pickle.removesuffix("data.pkl")
    if f"{root}byteorder" in entries:
        stream.seek(entries[f"{root}byteorder"].offset)
        if stream.read(6) != b"little":
            raise Refused("is big-endian; save it on another machine")

    def locate(key: str, count: int, itemsize: int) -> int:
        place = entries[f"{root}data/{key}"]
        if place.size // itemsize != count:
            raise ValueError("a storage of another size than the pickle says")
        return place.offset

    start, size = entries[pickle]
    stream.seek(start)
    return _run(Meter(stream, start + size), file, locate)


def _legacy(file: Path, stream: IO[bytes]) -> Any:
    """Magic number, version, system, the object, the keys of its storages, then the storages in that order.

    Where a storage lies is known only after the object, so the object is built twice.
    """
    stream.seek(0)
    end = file.stat().st_size
    sizes: dict[str, tuple[int, int]] = {}

    def nowhere(key: str, count: int, itemsize: int) -> int:
        if sizes.setdefault(key, (count, itemsize)) != (count, itemsize):
            raise ValueError("a storage of two sizes")
        return 0

    def run(locate: Locate) -> Any:
        return _run(Meter(stream, end), file, locate)

    magic, _, system = (run(nowhere) for _ in range(3))
    if magic != LEGACY_MAGIC:
        raise Refused("is a pickle that torch did not write; save it with torch or as safetensors")
    if not system["little_endian"]:
        raise Refused("is big-endian; save it on another machine")
    start = stream.tell()
    run(nowhere)
    listed = run(nowhere)
    offsets: dict[str, int] = {}
    place = stream.tell()
    for key in listed:
        count, itemsize = sizes[key]
        stream.seek(place)
        if int.from_bytes(stream.read(8), "little") != count or key in offsets:
            raise ValueError("a storage of another size than the pickle says")
        offsets[key] = place + 8
        place += 8 + count * itemsize
    if place > end:
        raise ValueError("cut short")
    stream.seek(start)
    return run(lambda key, count, itemsize: offsets[key])


class Meter:
    """A pickle in a file, up to `end`, and what it costs: so that a small one cannot ask for much time or memory."""

    def __init__(self, stream: IO[bytes], end: int) -> None:
        self.stream, self.left, self.spent = stream, end - stream.tell(), 0
        self.tell = stream.tell

    def read(self, size: int) -> bytes:
        """So many bytes. EOFError where there are not so many."""
        if size > self.left:
            raise EOFError
        self.left -= size
        self.take(size * BYTE)
        return self.stream.read(size)

    def readline(self) -> bytes:
        """The bytes to the end of the line."""
        line = self.stream.readline(min(self.left, MOST // BYTE))
        self.left -= len(line)
        self.take(len(line) * BYTE)
        return line

    def take(self, cost: int) -> None:
        """Raises Refused once more is spent than what lies beside weights needs."""
        self.spent += cost
        if self.spent > MOST:
            raise Refused("is a pickle of more steps than weights need; save only their state dict, as safetensors")

    def take_call(self, args: tuple[Any, ...]) -> None:
        """What a call costs that goes through its arguments, which a pickle may repeat at no cost of its own."""
        self.take(len(args) * STEP)
        for arg in args:
            if isinstance(arg, str | bytes):
                self.take(len(arg) * BYTE)
            elif isinstance(arg, tuple | list | dict | set):
                self.take(len(arg) * STEP)


# What a step, or an item that a call takes, an empty set and a byte of text come to in memory, and what all may: two
# million steps, which take seconds.
STEP, SET, BYTE, MOST = 64, 256, 2, 128_000_000


def _run(stream: Meter, file: Path, locate: Locate) -> Any:
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
    reader: Any = stream
    def call(function: Any, args: Any) -> Any:
        stream.take_call(expect(args, tuple))
        return expect(function, Global).call(*args)

    for opcode, arg, _ in pickletools.genops(reader):
        stream.take(STEP)
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
                stream.take(SET - STEP)
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
                stack.append(call(function, args))
            case "INST":
                stack.append(call(named(*arg.split(" ", 1)), tuple(pop_mark())))
            case "NEWOBJ" | "NEWOBJ_EX":
                function, args, *_ = pop(2 if opcode.name == "NEWOBJ" else 3)
                stack.append(call(function, args))
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
    offset = locate(expect(name, str), count, dtype.itemsize)
    if offset + nbytes > file.stat().st_size:
        raise ValueError("a storage is larger than the file")
    return Storage(file, offset, dtype, nbytes)
