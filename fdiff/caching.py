"""Caching across steps: what lies deep in a network changes little from one step to the next, so that some do without.

    network, memory = cached(network, plan, x, DeepCache(every=3))
    x = fdiff.sample(network, plan, x, key, memory=memory)

A transform of networks (x, t) -> out to ones that remember, (x, t, memory) -> (out, memory), see `fdiff.sample`;
pipelines take it as an option, `pipe(params, ..., cache=DeepCache(every=3))`. Which layers are left out
`fdiff.layer_cuts` says. What is decided by the row of the plan stays a choice under `jax.vmap`; what is decided by
values, as in `FirstBlockCache`, becomes the computation of both there, which is right and saves nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff import guidance
from fdiff.layer_cuts import Begun, Cut, begin, column, cut, over, whole
from fdiff.plan import Plan
from fdiff.rows import ByRow, at_row
from fdiff.sampling import as_partial

NEVER = -(2**30)  # a row before all: that of what was not computed yet
NOTHING = Begun({}, None, {})
Rows = Sequence[int] | None


@dataclasses.dataclass(frozen=True)
class DeepCache:
    """Compute what is deep in a network at every n-th step, and remember it between (Ma et al. 2024, section 3.2).

    every: how many steps a computation serves; 1 is no caching.
    depth: how many layers are computed at all steps: of a U-Net the first ones, and the last ones and one more; of a
        transformer the first blocks, where what the others add to them is remembered (Chen et al. 2024, eq. 5).
    at: the rows of the plan at which all is computed, in place of every n-th; the first one is in any case.

    Raises ValueError for numbers that are none.
    """

    every: int = 3
    depth: int = 0
    at: Rows = None

    def __post_init__(self) -> None:
        _check_counts(self, every=1, depth=0)


@dataclasses.dataclass(frozen=True)
class FirstBlockCache:
    """Compute all of a network but its first layer only where what that one adds has changed (Cheng 2024).

        mean |r - r_before| >= threshold mean |r_before|,  r = first(x) - x

    r_before: r as it was when all was computed last. Each sample of a batch decides for itself, and time is saved
    where all of them agree. threshold: 0 is no caching. Raises ValueError for a threshold below 0.
    """

    threshold: float = 0.1
    depth: int = dataclasses.field(default=1, init=False)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.threshold) and self.threshold >= 0):
            raise ValueError(f"threshold is {self.threshold!r}; it must be 0 or more, such as 0.1")


@dataclasses.dataclass(frozen=True)
class TaylorSeer:
    """Compute a network at every n-th step, and forecast it between by a polynomial (Liu et al. 2025).

        f(i) = sum_k f(i_k) prod_(j != k) (i - i_j) / (i_k - i_j)

    of the row i of the plan and the last order + 1 rows i_k that were computed. Order 1 is the paper's equation 4,
    whose higher orders, a Taylor polynomial with differences for its derivatives, miss what was computed before.

    every: how many steps a computation serves; 1 is no caching.
    order: of the polynomial; so long as fewer rows were computed, it is lower.
    depth: forecast what is deep only, as with `DeepCache`; None: the output of the network, none of which is computed.
    start: so many rows at the beginning are all computed.
    at: the rows of the plan that are computed, in place of all that; the first one is in any case.

    Raises ValueError for numbers that are none.
    """

    every: int = 3
    order: int = 1
    depth: int | None = None
    start: int = 0
    at: Rows = None

    def __post_init__(self) -> None:
        _check_counts(self, every=1, order=0, depth=0, start=0)


Cache = DeepCache | FirstBlockCache | TaylorSeer


@partial(jax.tree_util.register_dataclass, data_fields=["rows", "features", "added", "inner"], meta_fields=["cut"])
@dataclasses.dataclass(frozen=True)
class Remembered:
    """What a cached network remembers, the newest first.

    Attributes:
        rows: (k,) integers, at which all was computed.
        features: (k, ...) each, what was remembered there.
        added: what the first layer added, where that decides.
        inner: the memory of the network itself.
        cut: of which layers, None: of the output.
    """

    rows: jax.Array
    features: tuple[jax.Array, ...]
    added: Any
    inner: Any
    cut: Cut | None


def cached(network: Callable[..., Any], plan: Plan, x: jax.Array, cache: Cache, memory: Any = None) -> tuple[Any, Any]:
    """The network (x, t, memory) -> (out, memory) with a cache, and its first memory.

    Args:
        network: (x, t) -> out, or (x, t, memory) -> (out, memory).
        plan: what it will be run with.
        x: the first sample, or its shape and dtype.
        cache: what to leave out, and when.
        memory: the first one of a network that remembers.

    Under guidance at a part of the rows, the two networks are cached each by itself. Where a cache leaves nothing out,
    the network stays as it is. Raises ValueError for a network whose layers are not known, and for rows that the plan
    does not have.
    """
    if not isinstance(cache, Cache):
        raise ValueError(f"cache is {cache!r}; it must be a DeepCache, a FirstBlockCache or a TaylorSeer")
    at, rows = getattr(cache, "at", None), np.arange(len(plan))
    if at is not None and not set(at) <= set(rows.tolist()):
        raise ValueError(f"at is {at!r}; the plan has the rows 0 to {len(plan) - 1}")
    if _computes_all(cache, len(plan)):
        return as_partial(network), memory
    on = None if at is None else ByRow(np.isin(rows, at))
    inputs = jax.ShapeDtypeStruct(x.shape, jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    return _cached(as_partial(network), ByRow(rows), on, inputs, cache, memory)


def named(text: str) -> Cache:
    """The cache of deep:EVERY, deep:EVERY:DEPTH, first-block:THRESHOLD, taylor:EVERY or taylor:EVERY:ORDER.

    Raises ValueError for another.
    """
    kind, *words = text.split(":")
    try:
        numbers: list[Any] = [float(word) if kind == "first-block" else int(word) for word in words]
        if kind == "deep" and len(words) < 3:
            return DeepCache(*numbers)
        if kind == "first-block" and len(words) < 2:
            return FirstBlockCache(*numbers)
        if kind == "taylor" and len(words) < 3:
            return TaylorSeer(*numbers)
    except ValueError as error:
        raise ValueError(f"cache {text!r} says what cannot be: {error}") from None
    raise ValueError(f"cache is {text!r}; it must be such as deep:3, first-block:0.1 or taylor:3:1")


@dataclasses.dataclass(frozen=True)
class Cached:
    """What `cached` makes, a frozen dataclass, so that two of the same cache are one function to the compiler."""

    cache: Cache

    def __call__(
        self, network: Any, row: Any, on: Any, x: jax.Array, t: jax.Array, memory: Remembered
    ) -> tuple[jax.Array, Remembered]:
        """What the network says of x, and what to remember."""
        inputs = (x, t) if memory.inner is None else (x, t, memory.inner)
        begun = NOTHING if memory.cut is None else begin(memory.cut, network, inputs)
        features = forecast(memory, row)
        due, keep = self._due(memory, begun, row, on)

        def compute() -> tuple[jax.Array, Remembered]:
            kept = None if keep is None else (keep, features)
            out, inner, new = _computed(memory.cut, begun, network, inputs, kept)
            rows = jnp.concatenate([jnp.asarray(row, jnp.int32)[None], memory.rows[:-1]])
            stacks = [jnp.concatenate([one[None], old[:-1]]) for one, old in zip(new, memory.features, strict=True)]
            added = memory.added
            if keep is not None:
                added = jnp.where(column(keep, begun.added), added, begun.added)
            return out, Remembered(rows, tuple(stacks), added, inner, memory.cut)

        def remember() -> tuple[jax.Array, Remembered]:
            if memory.cut is None:
                return features[0], memory
            out, inner = _pair(over(memory.cut, begun, network, inputs, features), memory.inner)
            return out, dataclasses.replace(memory, inner=inner)

        return jax.lax.cond(due, compute, remember)

    def _due(self, memory: Remembered, begun: Begun, row: Any, on: Any) -> tuple[jax.Array, jax.Array | None]:
        """Whether all is computed, and which samples (b,) keep what is remembered, where they decide for themselves."""
        never = memory.rows[0] == NEVER
        if isinstance(self.cache, FirstBlockCache):
            change, size = (
                jnp.mean(jnp.abs(one.astype(jnp.float32)), axis=tuple(range(1, one.ndim)))
                for one in (begun.added - memory.added, memory.added)
            )
            keep = ~never & (change < self.cache.threshold * size)
            return ~jnp.all(keep), keep
        if on is not None:
            return never | on, None
        early = row < getattr(self.cache, "start", 0)
        return never | early | (row - memory.rows[0] >= self.cache.every), None


def forecast(memory: Remembered, row: Any) -> list[jax.Array]:
    """The polynomial through what is remembered, at a row."""
    known, k = memory.rows != NEVER, len(memory.rows)
    if k == 1:
        return [stack[0] for stack in memory.features]
    nodes = memory.rows.astype(jnp.float32)
    apart = nodes[:, None] - nodes + jnp.eye(k)
    shares = jnp.where(known & ~jnp.eye(k, dtype=bool), (row - nodes) / apart, 1.0)
    weights = jnp.where(known, jnp.prod(shares, axis=1), 0.0)
    return [jnp.tensordot(weights, stack.astype(jnp.float32), 1).astype(stack.dtype) for stack in memory.features]


def _computes_all(cache: Cache, count: int) -> bool:
    """Whether a cache leaves nothing out, so that the network stays as it is, to the last bit."""
    if isinstance(cache, FirstBlockCache):
        return cache.threshold == 0
    return cache.every == 1 if cache.at is None else len(set(cache.at)) == count


def _cached(network: Any, rows: ByRow, on: Any, inputs: Any, cache: Cache, inner: Any) -> tuple[Any, Any]:
    if network.func in guidance.IN_PART:
        pairs = [
            _cached(as_partial(one), rows, on, inputs, cache, own)
            for one, own in zip(network.args[:2], inner or (None, None), strict=True)
        ]
        networks, memories = zip(*pairs, strict=True)
        return Partial(network.func, *networks, *network.args[2:]), memories
    inputs = inputs if inner is None else (*inputs, inner)
    shapes, structure = jax.tree.flatten(jax.eval_shape(lambda: (at_row(network, 0), inputs)))
    where = None if cache.depth is None else cut(structure, tuple(shapes), cache.depth)
    begun, features = jax.eval_shape(partial(_first, where), *jax.tree.unflatten(structure, shapes))
    k = 1 + getattr(cache, "order", 0)
    added = jnp.zeros(begun.shape, begun.dtype) if isinstance(cache, FirstBlockCache) else None
    stacks = tuple(jnp.zeros((k, *one.shape), one.dtype) for one in features)
    memory = Remembered(jnp.full(k, NEVER, jnp.int32), stacks, added, inner, where)
    return Partial(Cached(cache), network, rows, on), memory


def _first(cut: Cut | None, network: Any, inputs: Any) -> tuple[Any, Sequence[jax.Array]]:
    """What a computation gives to remember."""
    begun = NOTHING if cut is None else begin(cut, network, inputs)
    return begun.added, _computed(cut, begun, network, inputs, None)[2]


def _computed(
    cut: Cut | None, begun: Begun, network: Any, inputs: Any, keep: Any
) -> tuple[jax.Array, Any, Sequence[jax.Array]]:
    """What the network gives, its next memory, and what of it to remember."""
    inner = inputs[2] if len(inputs) > 2 else None
    if cut is None:
        out, inner = _pair(network(*inputs), inner)
        return out, inner, [out]
    said, features = whole(cut, begun, network, inputs, keep)
    return *_pair(said, inner), features


def _pair(said: Any, inner: Any) -> tuple[jax.Array, Any]:
    """(out, next memory) of a network with or without one."""
    return (said, None) if inner is None else said


def _check_counts(cache: Any, **least: int) -> None:
    """Raise ValueError for what is no whole number, or below the least."""
    for name, low in least.items():
        value = getattr(cache, name)
        if value is None and name == "depth" and isinstance(cache, TaylorSeer):
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError(f"{name} is {value!r}; it must be a whole number from {low}")
    if cache.at is not None:
        object.__setattr__(cache, "at", tuple(int(row) for row in cache.at))
