"""The density that a denoiser gives to data, by the probability-flow ODE; and paths between samples."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from fdiff.plan import Plan
from fdiff.rows import at_row, fitted
from fdiff.sampling import Network, as_partial, predict


def log_likelihood(
    network: Network, plan: Plan, x: jax.Array, key: jax.Array | None = None, *, probes: int = 1
) -> jax.Array:
    """log p(x) in nats, (b,), by following the probability-flow ODE from data to noise (Song et al. 2021, eq. 39).

    With z = x / alpha and r = sigma / alpha the flow is dz/dr = eps(z), so that

        log p(x) = log N(alpha_n z_n; 0, start_std^2) + d log(alpha_n / alpha_1) + integral of div eps dr

    integrated by Heun's rule over the levels of the plan, from its last row to its first: order 2 in their number.

    Args:
        network: (x, t) -> out.
        plan: which levels to visit, and what the network's output means; one network call a level counts, so
            take a plan of a one-step scheduler with many steps.
        x: (b, ...) samples at the level of the plan's last row, that is alpha x0 + sigma noise.
        key: for Hutchinson's estimate of the divergence with Rademacher probes; exact trace, at a cost of one pass a
            dimension, if not given.
        probes: how many probes to average.
    """
    network = fitted(as_partial(network), plan)
    return _log_likelihood(network, plan, jnp.asarray(x, jnp.float32), key, probes=probes)


@partial(jax.jit, static_argnames="probes")
def _log_likelihood(network: Network, plan: Plan, x: jax.Array, key: jax.Array | None, *, probes: int) -> jax.Array:
    size = x[0].size
    up = jax.tree.map(lambda leaf: jnp.asarray(leaf)[::-1], plan)

    def flow(row: Plan, i: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        """eps at z by row i of the plan, and its divergence (b,)."""
        told = at_row(network, i)

        def eps(z: jax.Array) -> jax.Array:
            x = row.alpha * z
            return predict(row, x, told(row.c_in * x, row.t))[1]

        if key is None:
            basis = jnp.eye(size, dtype=jnp.float32).reshape(size, 1, *z.shape[1:])
            directions = jnp.broadcast_to(basis, (size, *z.shape))
            scale = 1.0
        else:
            heads = jax.random.bernoulli(key, jnp.float32(0.5), (probes, *z.shape))  # 64-bit mode: the same bits
            directions = 2 * heads.astype(jnp.float32) - 1
            scale = 1.0 / probes

        def along(direction: jax.Array) -> jax.Array:
            pushed = jax.jvp(eps, (z,), (direction,))[1]
            return jnp.sum((pushed * direction).reshape(len(z), -1), axis=1)

        return eps(z), scale * jnp.sum(jax.lax.map(along, directions), axis=0)

    def step(carry: tuple[jax.Array, jax.Array], rows: Any) -> tuple[tuple[jax.Array, jax.Array], None]:
        z, total = carry
        low, high, i = rows
        dr = high.sigma / high.alpha - low.sigma / low.alpha
        slope, divergence = flow(low, i, z)
        slope_to, divergence_to = flow(high, i - 1, z + dr * slope)
        return (z + dr / 2 * (slope + slope_to), total + dr / 2 * (divergence + divergence_to)), None

    last_first = jnp.arange(len(plan) - 1, 0, -1)
    rows = (jax.tree.map(lambda leaf: leaf[:-1], up), jax.tree.map(lambda leaf: leaf[1:], up), last_first)
    start = (x / up.alpha[0], jnp.zeros(len(x), jnp.float32))
    (z, total), _ = jax.lax.scan(step, start, rows)
    last, deviation = up.alpha[-1], up.start_std[-1]
    noise = (last * z).reshape(len(x), -1) / deviation
    prior = -0.5 * jnp.sum(noise**2, axis=1) - size * (0.5 * jnp.log(2 * jnp.pi) + jnp.log(deviation))
    return prior + size * jnp.log(last / up.alpha[0]) + total


def slerp(a: jax.Array, b: jax.Array, weight: jax.Array | float) -> jax.Array:
    """The point at `weight` of the arc from a to b, arrays of one shape, seen as two vectors (Shoemake 1985).

        sin((1 - w) angle) / sin(angle) a + sin(w angle) / sin(angle) b

    Noise that is mixed so keeps its deviation; mixed along a straight line it would lose some.
    """
    cosine = jnp.sum(a * b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b))
    angle = jnp.arccos(jnp.clip(cosine, -1.0, 1.0))
    sine = jnp.maximum(jnp.sin(angle), 1e-6)
    straight = (1 - weight) * a + weight * b
    arc = (jnp.sin((1 - weight) * angle) * a + jnp.sin(weight * angle) * b) / sine
    return jnp.where(jnp.sin(angle) < 1e-4, straight, arc)
