"""What a name of Python in a pickle stands for here: a tensor, a container, or nothing at all.

Nothing of Python is ever looked up. Objects of training beside the weights, such as callbacks of Lightning and numbers
of NumPy, become an `Inert` that takes whatever is put into it and keeps none of it.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from convert.tensors import DTYPES, Tensor, check_shape, span

LARGEST_REPETITION = 1_000_000  # bytes: a tensor may be larger than its storage, with strides of 0


class Refused(Exception):
    """The rest of a sentence about a file that is not read on purpose."""


class Storage(NamedTuple):
    """Numbers of one dtype in a file, of which tensors are windows."""

    file: Path
    offset: int
    dtype: np.dtype
    nbytes: int


class Inert:
    """Stands for an object that is no weight, and takes what is put into it."""

    def append(self, _: Any) -> None:
        """Keep nothing."""

    extend = update = append


def _nothing(*_: Any) -> Any:
    raise TypeError("no function")


class Global(NamedTuple):
    """A name of Python that a checkpoint may use: what stands for it, and what a call of it does."""

    value: Any = None
    call: Callable[..., Any] = _nothing


def expect(value: Any, kind: Any) -> Any:
    """The value. TypeError unless it is of that kind."""
    if not isinstance(value, kind):
        raise TypeError(f"a {type(value).__name__} where a {kind} belongs")
    return value


def dictionary(pairs: Iterable[Any]) -> dict[Any, Any]:
    """A dict of pairs."""
    pairs = [(key, value) for key, value in pairs]
    return dict(zip(keys(key for key, _ in pairs), (value for _, value in pairs), strict=True))


def keys(items: Iterable[Any]) -> list[Any]:
    """Scalars, and an `Inert` for any other key.

    The hash of a deeply nested tuple would overflow the stack, and that of an endless number takes time each time.
    """
    return [item if _is_scalar(item) else Inert() for item in items]


def _is_scalar(item: Any) -> bool:
    return isinstance(item, str | float | bytes | None) or (isinstance(item, int) and -(2**63) <= item < 2**63)


def whole(number: Any) -> int:
    """The number. ValueError unless it is whole, not negative and of 63 bits."""
    if type(number) is not int or not 0 <= number < 2**63:
        raise ValueError("sizes are whole numbers")
    return number


def _rebuild(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """torch._utils._rebuild_tensor and _rebuild_tensor_v2: a window on a storage."""
    return _window(expect(storage, Storage), offset, size, stride, storage.dtype)


def _rebuild_v3(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
    """The same for storages without a type of their own; the third of `rest` is the dtype."""
    dtype = expect(expect(rest[2], Global).value, np.dtype)
    return _window(expect(storage, Storage), offset, size, stride, dtype)


def _window(storage: Storage, offset: Any, size: Any, stride: Any, dtype: np.dtype) -> Tensor:
    shape = tuple(map(whole, expect(size, tuple | list)))
    strides = tuple(map(whole, expect(stride, tuple | list)))
    nbytes, length = check_shape(shape, dtype), span(shape, strides)
    if (whole(offset) + length) * dtype.itemsize > storage.nbytes:
        raise ValueError("a tensor is larger than its storage")
    if nbytes > length * dtype.itemsize and nbytes > max(storage.file.stat().st_size, LARGEST_REPETITION):
        raise ValueError("a tensor that repeats few numbers until they are larger than the file")
    return Tensor(storage.file, storage.offset + offset * dtype.itemsize, dtype, shape, strides)


def _rebuild_from_type(function: Any, _: Any, args: Any, __: Any) -> Any:
    return expect(function, Global).call(*expect(args, tuple))


def _encode(text: Any, encoding: Any) -> bytes:
    """How pickles of protocol 2 write bytes."""
    return expect(text, str).encode(expect(encoding, str) if encoding in ("latin1", "utf-8") else "")


_STORAGES = {
    "Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16", "Byte": "uint8",
    "Char": "int8", "Short": "int16", "Int": "int32", "Long": "int64", "Bool": "bool",
    "ComplexFloat": "complex64", "ComplexDouble": "complex128",
}
_INERT = Global(call=lambda *_: Inert())
_BUILTINS = ("object", "dict", "list", "tuple", "frozenset", "bytearray", "complex", "int", "float", "str", "slice")

GLOBALS = {
    "collections.OrderedDict": Global(call=lambda pairs=(): dictionary(pairs)),
    "collections.defaultdict": Global(call=lambda *_: {}),
    "torch._utils._rebuild_tensor": Global(call=_rebuild),
    "torch._utils._rebuild_tensor_v2": Global(call=_rebuild),
    "torch._utils._rebuild_tensor_v3": Global(call=_rebuild_v3),
    "torch._utils._rebuild_parameter": Global(call=lambda data, *_: expect(data, Tensor)),
    "torch._utils._rebuild_parameter_with_state": Global(call=lambda data, *_: expect(data, Tensor)),
    "torch._tensor._rebuild_from_type_v2": Global(call=_rebuild_from_type),
    "torch.nn.parameter.Parameter": Global(),
    "torch.Tensor": Global(),
    "torch.Size": Global(call=lambda sizes=(): tuple(sizes)),
    "torch.device": Global(call=lambda *name: None),
    "torch.storage.UntypedStorage": Global(np.dtype(np.uint8)),
    "builtins.set": Global(call=lambda items=(): set(keys(items))),
    "__builtin__.set": Global(call=lambda items=(): set(keys(items))),
    "_codecs.encode": Global(call=_encode),
    **{f"torch.{name}": Global(dtype) for name, dtype in DTYPES.items()},
    **{f"torch.{name}Storage": Global(DTYPES[dtype]) for name, dtype in _STORAGES.items()},
    **{f"{module}.{name}": _INERT for module in ("builtins", "__builtin__") for name in _BUILTINS},
    **{f"torch.nn.modules.container.{name}": _INERT for name in ("ParameterDict", "ParameterList")},
    **{f"{module}._reconstructor": _INERT for module in ("copyreg", "copy_reg")},
}
# Libraries whose objects lie beside the weights in checkpoints of training.
TRAINING = ("numpy.", "pytorch_lightning.", "lightning.", "lightning_fabric.", "omegaconf.", "argparse.", "pathlib.")


def named(module: Any, name: Any) -> Global:
    """What stands for a name. Raises Refused for one that no checkpoint needs."""
    full = f"{expect(module, str)}.{expect(name, str)}"
    if full in GLOBALS:
        return GLOBALS[full]
    if full.startswith(TRAINING):
        return _INERT
    shown = full if full.isprintable() else ascii(full)
    raise Refused(
        f"asks for {shown:.200}, and a checkpoint may hold only tensors and plain containers; "
        "if you trust it, load it with torch and save its state dict as safetensors"
    )
