"""Samplers of few calls as numbers to learn: all that a linear solver of so many calls can do."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff.plan import Plan

REACH = 0.1  # of the largest t, by which a t moves where its number moves by 1


class Free(NamedTuple):
    """What is learned of a sampler of n calls, as differences from what it begins as; all 0 at first.

    t, c_in: (n,), how far each call's time moves, in tenths of the largest, and its input's scale, as a share of it.
    combined: (n, n + 1), of the x behind each call the shares of the first x and of the x0 of each call so far.
    """

    t: jax.Array
    c_in: jax.Array
    combined: jax.Array


def begin(start: Plan) -> Free:
    """The numbers that leave a plan as it is."""
    n = len(start)
    return Free(jnp.zeros(n), jnp.zeros(n), jnp.zeros((n, n + 1)))


def combined(plan: Plan) -> np.ndarray:
    """(n, n + 1): row i says how the x behind call i is made of the first x and of the x0 of calls 0 to i.

    Raises ValueError for a plan that draws noise, clips, or has rows without a call.
    """
    plan = plan.map(lambda leaf: np.asarray(leaf, np.float64))
    if np.any(plan.from_noise) or np.isfinite(plan.clip[:, 0]).any() or not np.all(plan.c_in):
        raise ValueError("a sampler to learn from must draw no noise, clip nothing and call the network in every row")
    n, rows = len(plan), []
    state = np.zeros((plan.slots, n + 1))
    state[0, 0] = 1
    for i in range(n):
        x0 = np.eye(n + 1)[i + 1]
        # out from x0 and x, and eps from both
        (a, b), (c, d) = plan.x0_of[i], plan.eps_of[i]
        eps = c * state[0] + d * (x0 - a * state[0]) / b
        state = plan.carry[i] @ state + np.outer(plan.from_x0[i], x0) + np.outer(plan.from_eps[i], eps)
        rows.append(state[0])
    return np.stack(rows)


def table(start: Plan, free: Free) -> Plan:
    """The plan of n rows and n + 1 slots with these numbers: slots hold x, the first x, and the x0 of earlier calls."""
    n = len(start)
    shares = jnp.asarray(combined(start), jnp.float32) + jnp.tril(free.combined, 1)
    carry, from_x0 = np.zeros((n, n + 1, n + 1), np.float32), np.zeros((n, n + 1), np.float32)
    for i in range(n):
        carry[i, 1, 0 if i == 0 else 1] = 1
        carry[i, range(2, i + 2), range(2, i + 2)] = 1
        if i + 2 <= n:
            from_x0[i, i + 2] = 1
    first = np.eye(1, n, dtype=np.float32)[0]  # the first x is slot 0 in row 0 and slot 1 behind it
    new = jnp.concatenate([(first * shares[:, 0])[:, None], ((1 - first) * shares[:, 0])[:, None],
                           jnp.tril(shares[:, 1:n], -1)], axis=1)  # fmt: skip
    return dataclasses.replace(
        start, t=start.t + REACH * np.max(start.t) * free.t, c_in=start.c_in * (1 + free.c_in),
        carry=jnp.asarray(carry).at[:, 0].set(new), from_x0=jnp.asarray(from_x0).at[:, 0].set(jnp.diagonal(shares, 1)),
        from_eps=np.zeros((n, n + 1), np.float32), from_noise=np.zeros((n, n + 1), np.float32),
    )  # fmt: skip


def on_host(plan: Any) -> Plan:
    """The plan as NumPy arrays, to save."""
    fixed: Plan = plan.map(lambda leaf: np.asarray(leaf, np.float32))
    return fixed
