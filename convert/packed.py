"""Quantised tensors that lie in a file: what `weights.tensors` gives in place of the several tensors of each.

bitsandbytes  x.weight, x.weight.absmax, x.weight.quant_map, x.weight.quant_state.bitsandbytes__nf4 and, where the
scales
              are quantised too, x.weight.nested_absmax, x.weight.nested_quant_map; x.weight with x.SCB of 8 bits
float8        x.weight with x.scale_weight or x.weight_scale
fdiff         x.weight.int8.codes, x.weight.int8.scales: the kind and the name of each part
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeGuard

import numpy as np

from convert import layout, quantized
from convert.quantized import Quantized, Size
from convert.tensors import EIGHT_BITS, Tensor

KINDS = "|".join(kind for kind in quantized.WIDENED if kind != "plain")
OWN = re.compile(rf"(.+)\.({KINDS})\.(codes|factors|scales|table)")
STATE = re.compile(r"(.+)\.quant_state\.bitsandbytes__(nf4|fp4)")
MAPPED = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map")
SCALES = (".scale_weight", ".weight_scale")
# What tells how inputs are quantised, and that a file is: nothing that widening needs.
MATRICES = ("kernel", "embedding")  # what parameters that can stay quantised are called
PASSED_OVER = re.compile(r"(.+\.)?(scale_input|input_scale|weight_format|comfy_quant|scaled_fp8)")
DAMAGED = "download or copy it again."


class Packed(NamedTuple):
    """A quantised tensor in a file; nothing is read before `parts` is called.

    parts: gives the parts of a `Quantized`, of those shapes and dtypes. Of a matrix their rows are its rows, unless it
    is not `by_rows`, as where blocks run from one row into the next: then they have one row for all numbers.
    """

    file: Path
    kind: str
    shape: tuple[int, ...]
    sizes: Mapping[str, Size]
    parts: Callable[[], dict[str, np.ndarray]]
    by_rows: bool = True

    @property
    def dtype(self) -> np.dtype:
        """Of the numbers that it stands for."""
        return np.dtype(np.float32)

    @property
    def strides(self) -> None:
        """As a `Tensor` that is row-major has them."""
        return None

    def read(self) -> np.ndarray:
        """The numbers that it stands for."""
        return np.asarray(quantized.WIDENED[self.kind](self.parts())).reshape(self.shape)

    def rows(self, start: int, stop: int) -> Self:
        """Some of the rows. ValueError where the parts have others."""
        self._check_rows()
        count, parts = self.shape[0], self.parts
        sizes = {
            name: size._replace(shape=(stop - start, *size.shape[1:])) if size.shape[0] == count else size
            for name, size in self.sizes.items()
        }

        def some() -> dict[str, np.ndarray]:
            return {name: part[start:stop] if len(part) == count else part for name, part in parts().items()}

        return self._replace(shape=(stop - start, *self.shape[1:]), sizes=sizes, parts=some)

    def swapped(self) -> Self:
        """The second half of the rows before the first one. ValueError where the parts have others."""
        self._check_rows()
        count, parts = self.shape[0], self.parts

        def turned() -> dict[str, np.ndarray]:
            found = parts()
            return {name: np.roll(part, count // 2, 0) if len(part) == count else part for name, part in found.items()}

        return self._replace(parts=turned)

    def _check_rows(self) -> None:
        if not self.by_rows:
            raise ValueError(f"a tensor in {self.file} is cut apart, and its blocks run across the cut; choose a file "
                             "that is quantised otherwise.")

    def node(self, turned: bool, dtype: np.dtype, put: Callable[[np.ndarray], Any]) -> Quantized:
        """The leaf of a tree, each part made an array by `put`."""
        parts = {name: put(part) for name, part in self.parts().items()}
        return Quantized(self.kind, parts, self.shape[1], turned, np.dtype(dtype))


QUANTIZED = ("transformer", "unet", "text_encoder", "controlnet")  # how the names of the components begin that are
# quantised where it is asked for: autoencoders have few parameters, and show every error
SMALL = 2**10  # numbers: what has no more stays wide
WORDS = 2**10  # rows of a table of words, at least


def chosen(path: layout.Path, shape: tuple[int, ...], kind: str | None) -> str | None:
    """How the parameter of that path is quantised where `kind` is asked for; None: it stays wide.

    Matrices of the layers that repeat, which have a number in their path, and tables of words are quantised. What
    stands outside of them, the first and the last layers and what reads times and guidance, stays wide, and so do
    norms, biases, convolutions and what is small. A matrix whose columns groups of 32 do not divide is int8 where int4
    is asked for.

    Raises ValueError for a kind that there is not.
    """
    if kind is None:
        return None
    if kind not in quantized.MADE:
        raise ValueError(f"quantize is {kind!r}; it must be {', '.join(quantized.MADE)} or None.")
    words = path[-1] == "embedding" and len(shape) == 2 and shape[0] >= WORDS
    if not (words or repeats(path, shape)):
        return None
    columns = shape[1] if words else shape[0]
    return "int8" if kind == "int4" and columns % quantized.GROUP else kind


def repeats(path: layout.Path, shape: tuple[int, ...]) -> bool:
    """Whether a parameter is a large matrix of the layers that repeat, which have a number in their path."""
    inside = any(part.isdigit() for name in path for part in name.split("."))
    return inside and path[-1] == "kernel" and len(shape) == 2 and math.prod(shape) > SMALL


def stored(tensor: Any, kind: str | None) -> Any:
    """A matrix in a file as one that is quantised when it is read; itself where it is that, or no kind is given."""
    if kind is None or isinstance(tensor, Packed):
        return tensor
    sizes = quantized.sizes(kind, tensor.shape)
    if kind == "float8" and tensor.dtype.name in EIGHT_BITS:  # as it is
        sizes["codes"] = Size(tensor.shape, tensor.dtype)
        one = np.ones((1, 1), np.float32)
        return Packed(tensor.file, kind, tensor.shape, sizes, lambda: {"codes": tensor.read(), "scales": one})

    def parts() -> dict[str, np.ndarray]:
        return quantized.made(kind, np.asarray(tensor.read(), np.float32))

    return Packed(tensor.file, kind, tensor.shape, sizes, parts)


def plain(tensor: Any, dtype: np.dtype) -> Packed:
    """A matrix in a file as one that is read as it is; itself where it is quantised by rows."""
    if isinstance(tensor, Packed) and tensor.by_rows:
        return tensor
    sizes = {"codes": Size(tensor.shape, dtype)}
    return Packed(tensor.file, "plain", tensor.shape, sizes, lambda: {"codes": tensor.read().astype(dtype)})


def stays(tensor: Any, path: layout.Path) -> TypeGuard[Packed]:
    """Whether a tensor stays quantised as the parameter of that path: a matrix, by rows."""
    return isinstance(tensor, Packed) and tensor.by_rows and len(tensor.shape) == 2 and path[-1] in MATRICES


def grouped(found: Mapping[str, Tensor], file: str | PathLike[str]) -> dict[str, Any]:
    """The tensors of a file, those that belong to one quantised tensor as one `Packed`.

    Raises ValueError where a part of one is missing or does not fit the others.
    """
    made: dict[str, Any] = dict(found)
    for name, tensor in found.items():
        try:
            if match := OWN.fullmatch(name):
                if match[3] == "codes":
                    made[match[1]] = _own(match[1], match[2], made, Path(file))
            elif match := STATE.fullmatch(name):
                made[match[1]] = _mapped(match[1], made, tensor)
            elif name.endswith(SCALES) or name.endswith(".SCB"):
                _scaled(name, made)
            elif PASSED_OVER.fullmatch(name):
                del made[name]
        except KeyError as error:
            raise ValueError(f"{file} holds {name} and lacks {error.args[0]}; {DAMAGED}") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{name} in {file} does not fit its weight ({error}); {DAMAGED}") from None
    return made


def _own(name: str, kind: str, made: dict[str, Any], file: Path) -> Packed:
    """A tensor that fdiff quantised."""
    stored = {part: made.pop(f"{name}.{kind}.{part}") for part in _names(kind)}
    rows, last = stored["codes"].shape
    columns = quantized.columns(kind, last)
    for part, size in quantized.sizes(kind, (rows, columns)).items() if kind in quantized.MADE else ():
        if stored[part].shape not in (size.shape, (rows, 1)):
            raise ValueError(f"its {part} have shape {stored[part].shape} in place of {size.shape}")
    sizes = {part: Size(one.shape, one.dtype) for part, one in stored.items()}
    return Packed(file, kind, (rows, columns), sizes, lambda: {part: one.read() for part, one in stored.items()})


def _names(kind: str) -> tuple[str, ...]:
    others = {"int4": ("factors", "scales"), "nf4": ("scales", "table"), "int8": ("scales",), "float8": ("scales",)}
    return ("codes", *others.get(kind, ()))


def _mapped(name: str, made: dict[str, Any], state: Tensor) -> Packed:
    """A tensor of bitsandbytes with 4 bits: the numbers of a table, times a scale for a block of them."""
    said = json.loads(state.read().tobytes())
    shape, size = tuple(int(length) for length in said["shape"]), int(said["blocksize"])
    codes = made[name]
    nested = f"{name}.nested_absmax" in made
    scales, table = (made.pop(name + end) for end in MAPPED[:2])
    outer = [made.pop(name + end) for end in MAPPED[2:]] if nested else []
    for key in [key for key in made if key.startswith(f"{name}.quant_state.")]:
        del made[key]
    count = math.prod(shape)
    if count % 2 or math.prod(codes.shape) * 2 != count or math.prod(scales.shape) * size != count:
        raise ValueError(f"{math.prod(codes.shape)} bytes and {math.prod(scales.shape)} scales for shape {shape}")
    by_rows = len(shape) == 2 and shape[1] % size == 0
    rows = shape[0] if by_rows else 1
    float32 = np.dtype(np.float32)
    sizes = {
        "codes": Size((rows, count // 2 // rows), codes.dtype), "scales": Size((rows, count // size // rows), float32),
        "table": Size((1, 16), float32),
    }  # fmt: skip

    def parts() -> dict[str, np.ndarray]:
        absmax = scales.read().reshape(-1)
        if nested:
            wide = np.repeat(outer[0].read().reshape(-1), int(said["nested_blocksize"]))[: len(absmax)]
            absmax = outer[1].read().reshape(-1)[absmax] * wide + np.float32(said["nested_offset"])
        return {"codes": codes.read().reshape(rows, -1), "scales": absmax.astype(np.float32).reshape(rows, -1),
                "table": table.read().reshape(1, 16).astype(np.float32)}  # fmt: skip

    return Packed(codes.file, "nf4", shape, sizes, parts, by_rows)


def _scaled(name: str, made: dict[str, Any]) -> None:
    """Put a tensor of 8 bits and its scale together, if that is what the name means here."""
    end = ".SCB" if name.endswith(".SCB") else next(end for end in SCALES if name.endswith(end))
    weight = name.removesuffix(end) + ".weight"
    codes, scales = made[weight], made[name]
    if not (codes.dtype.name in EIGHT_BITS or (end == ".SCB" and codes.dtype == np.int8)):
        return
    count, rows = math.prod(scales.shape), codes.shape[0]
    if count not in (1, rows):
        raise ValueError(f"{count} scales for shape {codes.shape}")
    over = np.float32(127 if end == ".SCB" else 1)  # bitsandbytes keeps the largest number of each row

    def parts() -> dict[str, np.ndarray]:
        wide = scales.read().astype(np.float32).reshape(-1, 1)
        return {"codes": codes.read().reshape(rows, -1), "scales": wide / over}

    del made[name]
    sizes = {
        "codes": Size((rows, math.prod(codes.shape[1:])), codes.dtype),
        "scales": Size((count, 1), np.dtype(np.float32)),
    }  # fmt: skip
    made[weight] = Packed(codes.file, "int8" if end == ".SCB" else "float8", codes.shape, sizes, parts)
