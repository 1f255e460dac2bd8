"""torch's .bin, .pt and .ckpt files, read without torch and without running anything that is in them.

A pickle is a program: here it drives a small stack machine that can build containers, numbers, text and
tensors, and nothing else. A name of Python that is not in `GLOBALS` stops it with an error that says it.
Both formats of torch are read: the zip file of today, and the run of pickles from before torch 1.6.
"""

import pickletools
import re
import struct
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np

from convert.tensors import Tensor, span

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
    with open(file, "rb") as stream:
        try:
            return _zip(file) if stream.read(2) == b"PK" else _legacy(file, stream)
        except _Refused as refused:
            raise ValueError(f"{file} {refused}.") from None
        except Exception as error:  # whatever zipfile and pickletools, or a value where no such one belongs, raise
            raise ValueError(f"{file} is damaged, or no file of torch; download or copy it again.") from error


class _Refused(Exception):
    """The rest of a sentence about a file that is not read on purpose."""


class _Storage(NamedTuple):
    file: Path
    offset: int
    dtype: np.dtype
    nbytes: int


Locate = Callable[[str, int], int]  # (key of a storage, its bytes) -> offset in the file


def _zip(file: Path) -> Any:
    with zipfile.ZipFile(file) as archive:
        pickle = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if pickle is None:
            raise _Refused("is a zip file that torch did not write; look for the weights in it")
        root = pickle.removesuffix("data.pkl")
        entries = {info.filename: info for info in archive.infolist()}
        if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
            raise _Refused("is compressed, which torch does not do; save it with torch again")
        if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
            raise _Refused("is big-endian; save it on another machine")

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
        raise _Refused("is a pickle that torch did not write; save it with torch or as safetensors")
    if not system["little_endian"]:
        raise _Refused("is big-endian; save it on another machine")
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
                _expect(stack[-1], list).append(item)
            case "APPENDS":
                items = pop_mark()
                _expect(stack[-1], list).extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                stack.append(_dict(_pairs(pop_mark())))
            case "SETITEM":
                pair = pop(2)
                _expect(stack[-1], dict).update(_dict([pair]))
            case "SETITEMS":
                items = pop_mark()
                _expect(stack[-1], dict).update(_dict(_pairs(items)))
            case "EMPTY_SET":
                stack.append(set())
            case "ADDITEMS":
                items = pop_mark()
                _expect(stack[-1], set).update(_keys(items))
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
                stack.append(_global(*arg.split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(_global(*pop(2)))
            case "REDUCE":
                function, args = pop(2)
                stack.append(_expect(function, _Global).call(*_expect(args, tuple)))
            case "INST":
                stack.append(_global(*arg.split(" ", 1)).call(*pop_mark()))
            case "BUILD":  # attributes of an OrderedDict (_metadata) or of a tensor: not data
                pop(1)
                _expect(stack[-1], dict | Tensor)
            case "BINPERSID":
                stack.append(_storage(_expect(stack.pop(), tuple), file, locate))
            case _:
                raise _Refused(f"is a pickle with {opcode.name}, which no checkpoint needs; do not trust it")
    raise EOFError


VALUE = re.compile(r"(BIN)?INT[12]?|LONG[14]?|(BIN)?FLOAT|(SHORT_)?(BIN)?(STRING|BYTES|UNICODE)8?")


def _expect(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"a {type(value).__name__} where a {kind} belongs")
    return value


def _pairs(items: list[Any]) -> Iterable[Any]:
    return zip(items[::2], items[1::2], strict=True)


def _dict(pairs: Iterable[Any]) -> dict[Any, Any]:
    pairs = [(key, value) for key, value in pairs]
    return dict(zip(_keys(key for key, _ in pairs), (value for _, value in pairs), strict=True))


def _keys(items: Iterable[Any]) -> list[Any]:
    """Keys may be scalars only: the hash of a deeply nested tuple would overflow the stack."""
    return [_expect(item, str | int | float | bytes | None) for item in items]


def _storage(key: tuple[Any, ...], file: Path, locate: Locate) -> _Storage:
    """A storage by its persistent id: ("storage", type, key, device, elements[, None])."""
    kind, storage_type, name, _, count = key[:5]
    if kind != "storage" or any(part is not None for part in key[5:]):
        raise _Refused("is from before torch 0.4; save it with a newer torch")
    dtype = _expect(_expect(storage_type, _Global).value, np.dtype)
    nbytes = _whole(count) * dtype.itemsize
    offset = locate(_expect(name, str), nbytes)
    if offset + nbytes > file.stat().st_size:
        raise ValueError("a storage is larger than the file")
    return _Storage(file, offset, dtype, nbytes)


def _whole(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise ValueError("sizes are whole numbers")
    return number


def _rebuild(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """torch._utils._rebuild_tensor and _rebuild_tensor_v2: a window on a storage."""
    return _window(_expect(storage, _Storage), offset, size, stride, storage.dtype)


def _rebuild_v3(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
    """The same for storages without a type of their own; the third of `rest` is the dtype."""
    dtype = _expect(_expect(rest[2], _Global).value, np.dtype)
    return _window(_expect(storage, _Storage), offset, size, stride, dtype)


def _window(storage: _Storage, offset: Any, size: Any, stride: Any, dtype: np.dtype) -> Tensor:
    shape = tuple(map(_whole, _expect(size, tuple | list)))
    strides = tuple(map(_whole, _expect(stride, tuple | list)))
    if (_whole(offset) + span(shape, strides)) * dtype.itemsize > storage.nbytes:
        raise ValueError("a tensor is larger than its storage")
    return Tensor(storage.file, storage.offset + offset * dtype.itemsize, dtype, shape, strides)


def _rebuild_from_type(function: Any, _: Any, args: Any, __: Any) -> Any:
    return _expect(function, _Global).call(*_expect(args, tuple))


def _encode(text: Any, encoding: Any) -> bytes:
    """How pickles of protocol 2 write bytes."""
    return _expect(text, str).encode(_expect(encoding, str) if encoding in ("latin1", "utf-8") else "")


def _nothing(*_: Any) -> Any:
    raise TypeError("no function")


class _Global(NamedTuple):
    """A name of Python that a checkpoint may use: what stands for it, and what a call of it does."""

    value: Any = None
    call: Callable[..., Any] = _nothing


_SAME_IN_NUMPY = (
    "float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8",
    "bool", "complex64", "complex128",
)  # fmt: skip
_SMALL_FLOATS = (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)
DTYPES = {np.dtype(dtype).name: np.dtype(dtype) for dtype in (*_SAME_IN_NUMPY, *_SMALL_FLOATS)}
_STORAGES = {
    "Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16", "Byte": "uint8",
    "Char": "int8", "Short": "int16", "Int": "int32", "Long": "int64", "Bool": "bool",
    "ComplexFloat": "complex64", "ComplexDouble": "complex128",
}

GLOBALS = {
    "collections.OrderedDict": _Global(call=lambda pairs=(): _dict(pairs)),
    "torch._utils._rebuild_tensor": _Global(call=_rebuild),
    "torch._utils._rebuild_tensor_v2": _Global(call=_rebuild),
    "torch._utils._rebuild_tensor_v3": _Global(call=_rebuild_v3),
    "torch._utils._rebuild_parameter": _Global(call=lambda data, *_: _expect(data, Tensor)),
    "torch._utils._rebuild_parameter_with_state": _Global(call=lambda data, *_: _expect(data, Tensor)),
    "torch._tensor._rebuild_from_type_v2": _Global(call=_rebuild_from_type),
    "torch.nn.parameter.Parameter": _Global(),
    "torch.Tensor": _Global(),
    "torch.Size": _Global(call=lambda sizes=(): tuple(sizes)),
    "torch.device": _Global(call=lambda *name: None),
    "torch.storage.UntypedStorage": _Global(np.dtype(np.uint8)),
    "builtins.set": _Global(call=lambda items=(): set(_keys(items))),
    "__builtin__.set": _Global(call=lambda items=(): set(_keys(items))),
    "_codecs.encode": _Global(call=_encode),
    **{f"torch.{name}": _Global(dtype) for name, dtype in DTYPES.items()},
    **{f"torch.{name}Storage": _Global(DTYPES[dtype]) for name, dtype in _STORAGES.items()},
}


def _global(module: Any, name: Any) -> _Global:
    full = f"{_expect(module, str)}.{_expect(name, str)}"
    if full not in GLOBALS:
        raise _Refused(
            f"asks for {full}, and a checkpoint may hold only tensors and plain containers; "
            "if you trust it, load it with torch and save its state dict as safetensors"
        )
    return GLOBALS[full]
