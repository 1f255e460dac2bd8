"""Axes of arrays, where the batch may be sharded over the devices of a mesh with Explicit axes."""

import jax


def merge(x: jax.Array, *axes: int) -> jax.Array:
    """Merge each of these axes with the one behind it, from the left: (..., a, b, ...) -> (..., a b, ...).

    JAX merges but two axes at a time where another one is sharded.
    """
    for axis in axes:
        x = x.reshape(*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :])
    return x


def split(x: jax.Array, size: int, *axes: int) -> jax.Array:
    """Split each of these axes in two, the second of that size: (..., a b, ...) -> (..., a, b, ...)."""
    for axis in sorted(axes, reverse=True):
        x = x.reshape(*x.shape[:axis], x.shape[axis] // size, size, *x.shape[axis + 1 :])
    return x


def sharded(x: jax.Array) -> bool:
    """Whether some axis is sharded over an Explicit axis of a mesh."""
    return any(jax.typeof(x).sharding.spec)
