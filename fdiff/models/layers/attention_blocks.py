"""Attention in blocks of queries, so that few scores are held at a time."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.layers.axes import merge, sharded
from fdiff.models.layers.bilinear import bilinear


class Limits(NamedTuple):
    """How many scores there are at a time, but of no fewer queries than those; `whole`: of all samples and heads."""

    scores: int
    queries: int
    whole: bool = False


CPU = Limits(2**19, 512)  # what stays in a cache, and what keeps its matrix products fast


def at_once(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, scale: float) -> jax.Array:
    """Attention as JAX has it, which holds all scores."""
    if mask is not None:
        mask = jnp.broadcast_to(mask, (q.shape[0], q.shape[2], q.shape[1], k.shape[1]))
    boolean = mask is not None and mask.dtype == bool
    return jax.nn.dot_product_attention(
        q, k, v, bias=None if boolean else mask, mask=mask if boolean else None, scale=scale
    )


def in_blocks(
    limits: Limits, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, scale: float
) -> jax.Array:
    """Attention, a block of samples, heads and queries after the other; the backward pass computes the scores again."""
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))  # (b, heads, n, d)
    batch, heads, queries, _ = q.shape
    keys = k.shape[2]
    # As many queries, then heads, then samples at a time as fit.
    others = batch * heads if limits.whole else 1
    blocks = -(-queries // max(limits.queries, limits.scores // (others * keys)))
    block = -(-queries // blocks)
    group = largest_divisor(heads, limits.scores // (queries * keys))
    samples = largest_divisor(batch, limits.scores // (heads * queries * keys))
    if limits.whole or sharded(q):  # no slice may cut an axis that devices share
        samples, group = batch, heads
    sizes = (samples, group, block)
    end = blocks * block
    q = jnp.pad(q, ((0, 0), (0, 0), (0, end - queries), (0, 0)))
    if mask is not None:
        mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
        if mask.shape[2] > 1:
            mask = jnp.pad(mask, ((0, 0), (0, 0), (0, end - queries), (0, 0)))

    def one(start: jax.Array) -> jax.Array:
        weights = bilinear(_scores, _to_queries, _to_keys)(scale * part(q, start, sizes), part(k, start, sizes[:2]))
        if mask is not None:
            some = part(mask, start, sizes)
            weights = jnp.where(some, weights, -1e30) if some.dtype == bool else weights + some
        weights = jnp.exp(weights - jax.lax.stop_gradient(weights.max(-1, keepdims=True)))
        out = jnp.einsum(
            "bhqk,bhkd->bhqd",
            weights.astype(v.dtype),
            part(v, start, sizes[:2]),
            preferred_element_type=jnp.float32,
        )
        # The division comes last because d is smaller than the number of keys.
        return (out / weights.sum(-1, keepdims=True)).astype(v.dtype)

    grid = (batch // samples, heads // group, blocks)
    starts = np.indices(grid).reshape(3, -1).T * sizes
    if len(starts) == 1:
        out = one(starts[0])
    else:  # the backward pass computes the scores again instead of keeping them
        out = jax.lax.map(jax.checkpoint(one), jnp.asarray(starts))
        out = merge(out.reshape(*grid, *out.shape[1:]).transpose(0, 3, 1, 4, 2, 5, 6), 0, 1, 2)
    return out[:, :, :queries].swapaxes(1, 2)


def _scores(q: jax.Array, k: jax.Array) -> jax.Array:
    return jnp.einsum("bhqd,bhkd->bhqk", q, k, preferred_element_type=jnp.float32)


def _to_queries(k: jax.Array, scores: jax.Array) -> jax.Array:
    return jnp.einsum("bhqk,bhkd->bhqd", scores, k).astype(k.dtype)


def _to_keys(q: jax.Array, scores: jax.Array) -> jax.Array:
    """Not in JAX's form, which has the scores transposed, because a CPU is slow at that."""
    return jnp.einsum("bhqd,bhqk->bhdk", q, scores).swapaxes(2, 3).astype(q.dtype)


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor that is at most `limit`, or 1."""
    return max(i for i in range(1, number + 1) if number % i == 0 and i <= max(limit, 1))


def part(x: jax.Array, start: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    """The block of x that begins at `start`, along the first axes; an axis of length 1 stands for any length."""
    for axis, size in enumerate(sizes):
        if x.shape[axis] > size:
            x = jax.lax.dynamic_slice_in_dim(x, start[axis], size, axis)
    return x
