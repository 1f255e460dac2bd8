"""Guidance: functions from networks to a network. A network is (x, t) -> out; a Partial's arguments are its data.

Guiders return `jax.tree_util.Partial`s, so scales and conditions are arguments of the compiled sampler: a new scale
or prompt compiles nothing, and all of it can be vmapped and differentiated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from fdiff.sampling import Network

Conditional = Callable[[jax.Array, jax.Array, Any], jax.Array]


def classifier_free(
    network: Conditional,
    condition: Any,
    negative: Any,
    scale: jax.Array | float,
    *,
    rescale: jax.Array | float = 0.0,
) -> Network:
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6), both conditions in one call of twice the batch.

        out = negative + scale (positive - negative)

    Args:
        network: (x, t, condition) -> out, for example `Partial(f, params)`.
        condition, negative: trees of arrays (b, ...).
        scale: a number, or (b,) one for each sample; 1 is no guidance.
        rescale: 0 to 1, how far the deviation of `out` is brought back to that of the positive prediction (Lin et
            al. 2023, eq. 15-16), against overexposure.

    Where the network also predicts a variance (twice the channels of x), that half is the positive one's.
    """
    return Partial(_classifier_free, network, condition, negative, jnp.float32(scale), jnp.float32(rescale))


def interval(guided: Network, plain: Network, low: jax.Array | float, high: jax.Array | float) -> Network:
    """Guide only while low <= t <= high (Kynkaanniemi et al. 2024); elsewhere `plain` is called alone."""
    return Partial(_interval, guided, plain, jnp.float32(low), jnp.float32(high))


def given(network: Conditional, condition: Any) -> Network:
    """The network under one condition, without guidance."""
    return Partial(_given, network, condition)


def _given(network: Conditional, condition: Any, x: jax.Array, t: jax.Array) -> jax.Array:
    return network(x, t, condition)


def _classifier_free(
    network: Conditional,
    condition: Any,
    negative: Any,
    scale: jax.Array,
    rescale: jax.Array,
    x: jax.Array,
    t: jax.Array,
) -> jax.Array:
    both = jax.tree.map(lambda a, b: jnp.concatenate([jnp.asarray(a), jnp.asarray(b)]), negative, condition)
    out = network(jnp.concatenate([x, x]), t, both).astype(jnp.float32)
    without, positive = jnp.split(out, 2)
    without, (positive, variance) = without[..., : x.shape[-1]], jnp.split(positive, [x.shape[-1]], axis=-1)
    guided = without + _column(scale, x) * (positive - without)
    return jnp.concatenate([_rescale(guided, positive, rescale), variance], axis=-1)


def _interval(
    guided: Network, plain: Network, low: jax.Array, high: jax.Array, x: jax.Array, t: jax.Array
) -> jax.Array:
    return jax.lax.cond((low <= t) & (t <= high), guided, lambda x, t: plain(x, t).astype(jnp.float32), x, t)


def _rescale(guided: jax.Array, positive: jax.Array, rescale: jax.Array) -> jax.Array:
    axes = tuple(range(1, guided.ndim))
    ratio = jnp.std(positive, axes, keepdims=True) / jnp.maximum(jnp.std(guided, axes, keepdims=True), 1e-12)
    return guided * (_column(rescale, guided) * (ratio - 1) + 1)


def _column(value: jax.Array, x: jax.Array) -> jax.Array:
    """A number, or (b,) shaped to scale x."""
    return value.reshape(value.shape + (1,) * (x.ndim - 1)) if value.ndim else value
