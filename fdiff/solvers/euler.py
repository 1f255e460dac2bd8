"""Euler's method with churn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fdiff.plan import Grid, Memory, Pair, Solver


def euler(
    gamma: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = np.inf,
    s_noise: float = 1.0,
    *,
    x0_of: Callable[[float, float], Pair] | None = None,
) -> Solver:
    """Euler's method with churn (Karras et al. 2022, algorithm 2 without its correction). Order 1.

        hat   = (1 + gamma) sigma                  where s_tmin <= sigma <= s_tmax, else sigma
        x_hat = x + s_noise sqrt(hat^2 - sigma^2) noise
        x     = x_hat + (sigma_to - hat) (x_hat - x0) / hat

    As in diffusers, the network is called before the noise is added: its output is kept and x0 read from it
    anew. Churn is for x = x0 + sigma eps; without it any grid will do.

    Args:
        gamma: how much the level rises for a moment, 0 to sqrt(2) - 1.
        s_tmin, s_tmax: the levels between which it does.
        s_noise: deviation of the noise that raises it.
        x0_of: (sigma, hat) -> (a, b), x0 = a x_hat + b out; the prediction at level hat. Needed with gamma.
    """
    def step(i: int, grid: Grid, state: Memory, x0: Any, eps: Any, noise: Any) -> Memory:
        sigma, sigma_to = grid.sigma[i], grid.sigma_to[i]
        if not gamma or not s_tmin <= sigma <= s_tmax or x0_of is None:
            return Memory(grid.alpha_to[i] * x0 + sigma_to * eps)
        hat = (1 + gamma) * sigma
        x_hat = state.x + s_noise * np.sqrt(hat**2 - sigma**2) * noise
        of_x, of_out = x0_of(sigma, sigma)
        out = (x0 - of_x * state.x) / of_out
        of_x, of_out = x0_of(sigma, hat)
        x0 = of_x * x_hat + of_out * out
        return Memory(x0 + sigma_to / hat * (x_hat - x0))

    return Solver(step, keeps_level=not gamma, lands=not gamma)
