"""Weights that stay quantised: a leaf of a tree of parameters, which a layer widens when it reads it.

    kernel = Quantized("int8", {"codes": codes, "scales": scales}, columns=3072, turned=True, dtype=np.dtype("float32"))
    kernel.shape, kernel.dtype        as of the array in whose place it is
    kernel.widened()                  that array

It is a pytree of its parts, so that it jits, vmaps, shards and stacks like the array: along a leading axis of all
parts. Of every kind the part "codes" is (..., rows, n), where the rows are those of torch's matrix, (out, in) or
(word, feature).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

from convert import ggml

Parts = Mapping[str, Any]
GROUP, MOST = 32, 15  # of int4: columns that share a factor, and the largest of these
HIGHEST = 448.0  # of float8_e4m3fn


def _scaled(parts: Parts) -> jax.Array:
    """codes * scales, a scale for each row or for all."""
    return parts["codes"].astype(jnp.float32) * parts["scales"].astype(jnp.float32)


def _plain(parts: Parts) -> jax.Array:
    """The numbers as they are: of a matrix that is not quantised, but read while it is computed with."""
    return jnp.asarray(parts["codes"])


def _int8(parts: Parts) -> jax.Array:
    return jnp.asarray(parts["codes"])


def _int4(parts: Parts) -> jax.Array:
    """(code - 8) * factor, a factor for GROUP columns; a byte holds column i low and column i + columns / 2 high."""
    codes, factors = jnp.asarray(parts["codes"]), jnp.asarray(parts["factors"])
    numbers = jnp.concatenate([codes & 15, codes >> 4], axis=-1).astype(jnp.int8) - jnp.int8(8)
    groups = numbers.reshape(*numbers.shape[:-1], factors.shape[-1], GROUP)
    return (groups * factors[..., None]).reshape(numbers.shape)


# Kinds that are whole numbers of 8 bits, times a scale for each row: parts -> (..., rows, columns).
INTEGERS: dict[str, Callable[[Parts], jax.Array]] = {"int8": _int8, "int4": _int4}


def _scaled_int4(parts: Parts) -> jax.Array:
    return _int4(parts).astype(jnp.float32) * parts["scales"]


def _table(parts: Parts) -> jax.Array:
    """table[code] * scale, a scale for columns / scales of them; a byte holds an even column high and an odd one
    low."""
    codes, scales = jnp.asarray(parts["codes"]), parts["scales"].astype(jnp.float32)
    pairs = jnp.stack([codes >> 4, codes & 15], axis=-1)
    numbers = parts["table"].reshape(-1, 16)[0][pairs].reshape(*codes.shape[:-1], scales.shape[-1], -1)
    return (numbers * scales[..., None]).reshape(*codes.shape[:-1], -1)


def _blocks(kind: str) -> Callable[[Parts], jax.Array]:
    return lambda parts: ggml.widened(kind, jnp.asarray(parts["codes"]))


# What each kind is widened by: parts -> (..., rows, columns) in float32. Parts of one row are for all rows.
WIDENED: dict[str, Callable[[Parts], jax.Array]] = {
    "plain": _plain, "int8": _scaled, "float8": _scaled, "int4": _scaled_int4, "nf4": _table,
    **{kind: _blocks(kind) for kind in ggml.KINDS},
}  # fmt: skip


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True)
class Quantized:
    """A matrix in parts. `turned`: it is a kernel, (in, out), and its rows are those of the transpose."""

    kind: str
    parts: Parts
    columns: int
    turned: bool
    dtype: np.dtype  # of the array that it is widened to, and so of the computation

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array."""
        *stack, rows, _ = self.parts["codes"].shape
        return (*stack, self.columns, rows) if self.turned else (*stack, rows, self.columns)

    @property
    def ndim(self) -> int:
        """How many axes the array has."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes of the parts."""
        return sum(part.nbytes for part in self.parts.values())

    def rows(self) -> jax.Array:
        """(..., rows, columns), in its dtype."""
        return WIDENED[self.kind](self.parts).astype(self.dtype)

    def widened(self) -> jax.Array:
        """The array."""
        return self.rows().swapaxes(-1, -2) if self.turned else self.rows()

    def take(self, indices: jax.Array) -> jax.Array:
        """Rows of a table: (...) -> (..., columns), no more of it being widened."""
        count = self.parts["codes"].shape[-2]
        some = {
            name: jnp.take(part, indices, axis=0) if part.shape[0] == count else part
            for name, part in self.parts.items()
        }
        return WIDENED[self.kind](some).astype(self.dtype)

    def changed(self, array: jax.Array) -> Self:
        """Another array in its place, as int8: fewer bits would lose most of a small change. What is wide stays so."""
        matrix = array.swapaxes(-1, -2) if self.turned else array
        if self.kind == "plain":
            return dataclasses.replace(self, parts={"codes": matrix.astype(self.dtype)})
        matrix = matrix.astype(jnp.float32)
        return dataclasses.replace(self, kind="int8", parts=made("int8", matrix, jnp))

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], Any]:
        """The parts, by their names, and what is static."""
        names = tuple(sorted(self.parts))
        keyed = [(jax.tree_util.DictKey(name), self.parts[name]) for name in names]
        return keyed, (self.kind, names, self.columns, self.turned, self.dtype)

    @classmethod
    def tree_unflatten(cls, static: Any, parts: Any) -> Self:
        """The inverse."""
        kind, names, columns, turned, dtype = static
        return cls(kind, dict(zip(names, parts, strict=True)), columns, turned, dtype)


class Shelf:
    """The matrices of a model that stay in its files, by number."""

    def __init__(self) -> None:
        self.sources: list[Any] = []

    def add(self, source: Any, turned: bool, dtype: np.dtype) -> "Streamed":
        """The leaf for a `convert.packed.Packed`."""
        self.sources.append(source)
        sizes = tuple((name, size.shape, size.dtype) for name, size in sorted(source.sizes.items()))
        number = jnp.int32(len(self.sources) - 1)
        return Streamed(number, self, source.kind, sizes, source.shape[1], turned, np.dtype(dtype))


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class Streamed:
    """A matrix that is read whenever it is computed with. Its number is an array, so that layers stack."""

    number: jax.Array
    shelf: Shelf
    kind: str
    sizes: tuple[tuple[str, tuple[int, ...], np.dtype], ...]
    columns: int
    turned: bool
    dtype: np.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array."""
        rows = next(shape[0] for name, shape, _ in self.sizes if name == "codes")
        return (*self.number.shape, *((self.columns, rows) if self.turned else (rows, self.columns)))

    def fetched(self, after: jax.Array | None = None) -> Quantized:
        """What the file holds. A compiled program reads it when `after` is there, so that it holds few at a time."""
        names = tuple(name for name, *_ in self.sizes)
        results = tuple(jax.ShapeDtypeStruct(shape, dtype) for _, shape, dtype in self.sizes)
        first = jnp.zeros(1) if after is None else jax.lax.stop_gradient(after.reshape(-1)[:1])

        def read(number: Any, _: Any) -> tuple[np.ndarray, ...]:
            parts = self.shelf.sources[int(number)].parts()
            return tuple(np.ascontiguousarray(parts[name]) for name in names)

        found = jax.pure_callback(read, results, self.number, first, vmap_method="sequential")
        return Quantized(self.kind, dict(zip(names, found, strict=True)), self.columns, self.turned, self.dtype)

    def tree_flatten(self) -> tuple[tuple[Any], Any]:
        """The number, and what is static."""
        return (self.number,), (self.shelf, self.kind, self.sizes, self.columns, self.turned, self.dtype)

    @classmethod
    def tree_unflatten(cls, static: Any, numbers: Any) -> Self:
        """The inverse."""
        return cls(*numbers, *static)


def is_quantized(leaf: Any) -> TypeGuard[Quantized | Streamed]:
    """Whether it is such a leaf: the `is_leaf` of whoever looks at a tree by parameters."""
    return isinstance(leaf, Quantized | Streamed)


def holds_quantized(tree: Any) -> bool:
    """Whether there is such a leaf in a tree."""
    return any(map(is_quantized, jax.tree.leaves(tree, is_leaf=is_quantized)))


def widened(leaf: Any) -> Any:
    """The array that a leaf is, or stands for."""
    leaf = leaf.fetched() if isinstance(leaf, Streamed) else leaf
    return leaf.widened() if isinstance(leaf, Quantized) else leaf


def _int8_made(matrix: Any, xp: Any) -> dict[str, Any]:
    """Symmetric, a scale for each row: round(w / scale), scale = max |w| / 127."""
    scales = _nonzero(xp.max(xp.abs(matrix), axis=-1, keepdims=True) / 127, xp)
    return {"codes": xp.round(matrix / scales).astype(np.int8), "scales": scales.astype(np.float32)}


def _int4_made(matrix: Any, xp: Any) -> dict[str, Any]:
    """Codes from 0 to 15 for w / (factor * scale) + 8, a scale for each row and a whole factor for GROUP columns.

    A factor is negative where the number of largest size is positive, so that this one is -8 of its steps and all 16
    codes are in use. Factors are at most 15, so that factor * (code - 8) has 8 bits (`INTEGERS`).
    """
    groups = matrix.reshape(*matrix.shape[:-1], -1, GROUP)
    low, high = xp.min(groups, axis=-1), xp.max(groups, axis=-1)
    steps = xp.where(high > -low, high, low) / -8
    scales = _nonzero(xp.max(xp.abs(steps), axis=-1, keepdims=True) / MOST, xp)
    factors = xp.clip(xp.ceil(xp.abs(steps) / scales - 1e-4), 1, MOST) * xp.where(steps < 0, -1, 1)
    codes = xp.clip(xp.round(groups / (factors * scales)[..., None]) + 8, 0, 15).astype(np.uint8).reshape(matrix.shape)
    half = matrix.shape[-1] // 2
    return {"codes": codes[..., :half] | codes[..., half:] << 4, "factors": factors.astype(np.int8),
            "scales": scales.astype(np.float32)}  # fmt: skip


def _float8_made(matrix: Any, xp: Any) -> dict[str, Any]:
    """One scale for all, by which the number of largest size becomes the largest that float8_e4m3fn has."""
    scales = _nonzero(xp.max(xp.abs(matrix), axis=(-1, -2), keepdims=True) / HIGHEST, xp)
    return {"codes": (matrix / scales).astype(jnp.float8_e4m3fn), "scales": scales.astype(np.float32)}


def _nonzero(scales: Any, xp: Any) -> Any:
    return xp.where(scales == 0, np.float32(1), scales)


MADE: dict[str, Callable[[Any, Any], dict[str, Any]]] = {
    "int8": _int8_made, "int4": _int4_made, "float8": _float8_made,
}  # fmt: skip


def made(kind: str, matrix: Any, xp: Any = np) -> dict[str, Any]:
    """The parts of a matrix (..., rows, columns) in float32: of int8, int4 or float8, computed by NumPy or
    jax.numpy."""
    return MADE[kind](matrix, xp)


class Size(NamedTuple):
    """The shape and the dtype of an array that is not there yet."""

    shape: tuple[int, ...]
    dtype: np.dtype


def columns(kind: str, count: int) -> int:
    """How many columns a row of codes of that length stands for."""
    if kind in ggml.KINDS:
        return count // ggml.KINDS[kind].nbytes * ggml.KINDS[kind].numbers
    return 2 * count if kind in ("int4", "nf4") else count


def sizes(kind: str, shape: tuple[int, ...]) -> dict[str, Size]:
    """The shapes and dtypes of the parts that `made` gives for a matrix of that shape."""
    rows, columns = shape
    return {
        "int8": {"codes": Size(shape, np.dtype(np.int8)), "scales": Size((rows, 1), np.dtype(np.float32))},
        "float8": {"codes": Size(shape, np.dtype(jnp.float8_e4m3fn)), "scales": Size((1, 1), np.dtype(np.float32))},
        "int4": {
            "codes": Size((rows, columns // 2), np.dtype(np.uint8)),
            "factors": Size((rows, columns // GROUP), np.dtype(np.int8)),
            "scales": Size((rows, 1), np.dtype(np.float32)),
        },
    }[kind]
