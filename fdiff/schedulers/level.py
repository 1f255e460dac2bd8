"""One meaning of a level, for sampling and training."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Level(NamedTuple):
    """What x is at a training time, what a network sees and is told of it, and how its output is read.

        x = alpha x0 + sigma eps,  out = network(c_in x, told)
        x0 = x0_of[0] x + x0_of[1] out,  eps = eps_of[0] x + eps_of[1] out

    The fields are float32, shaped like the time; x0_of and eps_of have another axis, of 2. A row of a `Plan` with a
    network call is such a level.
    """

    alpha: jax.Array
    sigma: jax.Array
    c_in: jax.Array
    x0_of: jax.Array
    eps_of: jax.Array
    told: jax.Array

    def noisy(self, x0: jax.Array, noise: jax.Array) -> jax.Array:
        """x = alpha x0 + sigma noise, shaped like x0; the level is a number or (b,), one for each sample."""
        return broadcast(self.alpha, x0) * x0 + broadcast(self.sigma, x0) * noise

    def target(self, x0: jax.Array, noise: jax.Array) -> jax.Array:
        """What a perfect network says of that x, shaped like x0.

            out = (x0 - x0_of[0] x) / x0_of[1],  or (noise - eps_of[0] x) / eps_of[1] where x0_of[1] is nearly 0

        The two are one but for networks along a flow that predict v as diffusers reads it, from which x0 comes right.
        """
        x = self.noisy(x0, noise)
        (p, q), (r, w) = ([broadcast(of[..., i], x0) for i in range(2)] for of in (self.x0_of, self.eps_of))
        tiny = jnp.abs(q) < 5e-4 * jnp.abs(w)
        return jnp.where(tiny, noise - r * x, x0 - p * x) / jnp.where(tiny, w, q)


def hypot(a: Any, b: Any) -> Any:
    """sqrt(a^2 + b^2) of numbers and arrays, by NumPy in float64 unless one is JAX's."""
    return (jnp if isinstance(a, jax.Array) or isinstance(b, jax.Array) else np).hypot(a, b)


def broadcast(level: jax.Array, x: jax.Array) -> jax.Array:
    """The level, a number or (b,), with as many axes as x and its dtype."""
    level = jnp.asarray(level, x.dtype)
    return level.reshape(level.shape + (1,) * (x.ndim - level.ndim)) if level.ndim else level
