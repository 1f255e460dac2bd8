"""Random numbers of JAX keys: float32 in every mode, and under vmap what each key gives alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal numbers of that shape.

    They are float32 whatever they are cast to afterwards: bfloat16 draws take only 128 values, and the 64-bit
    mode's take other bits of the key.
    """
    return _alone(lambda key: jax.random.normal(key, shape, jnp.float32))(key)


def uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Numbers of that shape drawn evenly from [0, 1), float32."""
    return _alone(lambda key: jax.random.uniform(key, shape, jnp.float32))(key)


def fold_in(key: jax.Array, i: jax.Array | int) -> jax.Array:
    """The i-th key of a key."""
    return _alone(jax.random.fold_in)(key, jnp.asarray(i, jnp.uint32))


def split(key: jax.Array) -> jax.Array:
    """Two keys (2,) of a key."""
    return _alone(lambda key: jax.random.split(key))(key)


def typed(key: jax.Array | np.ndarray) -> jax.Array:
    """A key of the new style, also from the words of one as jax.random.PRNGKey makes them."""
    if key.dtype != np.uint32:
        return jnp.asarray(key)
    default = jax.config.values["jax_default_prng_impl"]
    of_four_words = "rbg" if default == "threefry2x32" else default
    return jax.random.wrap_key_data(jnp.asarray(key), impl=of_four_words if key.shape[-1] == 4 else "threefry2x32")


def _alone(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The function of a key, such that vmap gives what each key gives alone.

    vmap draws the bits of a batch of rbg or unsafe_rbg keys from the first one, so those run one after the other.
    """

    def call(key: jax.Array, *arrays: jax.Array) -> Any:
        key = typed(key)
        if jax.random.key_impl(key) == "threefry2x32":
            return function(key, *arrays)
        return jax.custom_batching.sequential_vmap(function)(key, *arrays)

    return call
