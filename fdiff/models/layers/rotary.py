"""Rotary embeddings: where a token is, as an angle by which its queries and keys are turned (Su et al. 2021)."""

import jax
import jax.numpy as jnp
import numpy as np


def rotary_angles(positions: jax.Array, features: int, theta: float = 10000.0) -> jax.Array:
    """positions (..., n) -> angles (..., n, features / 2), float32: angle k is position * theta^(-2 k / features)."""
    frequencies = theta ** (-np.arange(0, features, 2) / features)
    return positions.astype(jnp.float32)[..., None] * frequencies.astype(np.float32)


def rotate_halves(x: jax.Array, angles: jax.Array) -> jax.Array:
    """x (b, n, heads, d) turned by angles (n, d / 2) or (b, n, d / 2); number k is turned with number k + d / 2."""
    cos, sin = jnp.cos(angles)[..., None, :], jnp.sin(angles)[..., None, :]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def rotate_pairs(x: jax.Array, angles: jax.Array) -> jax.Array:
    """The same, but number 2 k is turned with number 2 k + 1."""
    cos, sin = jnp.cos(angles)[..., None, :], jnp.sin(angles)[..., None, :]
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
    first, second = pairs[..., 0], pairs[..., 1]
    turned = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.reshape(x.shape).astype(x.dtype)


def axes_angles(positions: jax.Array, features: tuple[int, ...], theta: float) -> jax.Array:
    """positions (..., n, axes) -> angles (..., n, sum(features) / 2): a part for each axis, one after the other."""
    parts = [rotary_angles(positions[..., i], width, theta) for i, width in enumerate(features)]
    return jnp.concatenate(parts, axis=-1)
