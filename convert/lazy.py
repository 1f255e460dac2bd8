"""A checkpoint that is read while another is written: the memory of one tensor suffices."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convert import layout, packed, weights
from convert.packed import Packed
from convert.quantized import Quantized
from convert.tensors import Tensor


class Leaf:
    """A parameter in a file: its shape and dtype are known, NumPy reads it when it needs its numbers."""

    def __init__(
        self,
        path: layout.Path,
        tensor: Tensor,
        shape: tuple[int, ...],
        dtype: np.dtype,
        report: Callable[[int], object],
    ) -> None:
        self.path, self.tensor, self.shape, self.dtype, self.report = path, tensor, shape, dtype, report

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read it. The report gets the size in bytes."""
        array = layout.from_torch(self.path, self.tensor.read().astype(self.dtype, copy=False))
        self.report(array.nbytes)
        return array if dtype is None else array.astype(dtype)

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


class Part:
    """A part of a quantised parameter in a file: its shape and dtype are known, NumPy reads it when it needs it."""

    def __init__(self, name: str, source: Packed, report: Callable[[int], object]) -> None:
        self.name, self.source, self.report = name, source, report
        self.shape, self.dtype = source.sizes[name]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read it. The report gets the size in bytes."""
        self.report(self.nbytes)
        array = self.source.parts()[self.name]
        return array if dtype is None else array.astype(dtype)

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


def lazy(
    found: Mapping[str, Tensor],
    shapes: Mapping[str, Any],
    *,
    file: str | os.PathLike[str],
    dtype: Any = None,
    quantize: str | None = None,
    report: Callable[[int], object] = lambda nbytes: None,
) -> dict[str, Any]:
    """The tree `shapes` with a `Leaf` in place of each array, as `convert.weights.save` takes it.

    Floating point parameters become `dtype`, quantised ones too; None keeps what the file has. `report` is told the
    bytes of each as it is read. For `quantize` and for errors see `convert.weights.fill`.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(shapes)
    paths = [tuple(str(entry.key) for entry in path) for path, _ in leaves]
    wanted = {path: leaf for path, (_, leaf) in zip(paths, leaves, strict=True)}
    target = weights.floating(dtype)
    made: list[Any] = []
    for (path, leaf), tensor in zip(wanted.items(), weights.match(found, wanted, file), strict=True):
        source = packed.stored(tensor, packed.chosen(path, leaf.shape, quantize))
        if packed.stays(source, path) and (dtype is None or quantize is not None):
            parts = {name: Part(name, source, report) for name in source.sizes}
            made.append(Quantized(source.kind, parts, source.shape[1], path[-1] == "kernel", source.dtype))
            continue
        floating = jnp.issubdtype(source.dtype, jnp.floating)
        made.append(Leaf(path, source, leaf.shape, target if target and floating else source.dtype, report))
    return jax.tree.unflatten(treedef, made)
