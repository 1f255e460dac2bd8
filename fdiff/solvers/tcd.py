"""Trajectory consistency sampling."""

from __future__ import annotations

from typing import Any

import numpy as np

from fdiff.plan import Grid, Memory, Solver


def tcd(alpha_between: np.ndarray, sigma_between: np.ndarray) -> Solver:
    """Strategic stochastic sampling (Zheng et al. 2024): jump below the next level, then noise up to it.

        x_s = alpha_s x0 + sigma_s eps
        x   = alpha_to / alpha_s x_s + sqrt(1 - (alpha_to / alpha_s)^2) noise

    No order, one network call a step; stochastic where s lies below the next level. For alpha^2 + sigma^2 = 1.

    Args:
        alpha_between, sigma_between: (n,) the level s of each row.
    """
    def step(i: int, grid: Grid, state: Memory, x0: Any, eps: Any, noise: Any) -> Memory:
        x = alpha_between[i] * x0 + sigma_between[i] * eps
        ratio = grid.alpha_to[i] / alpha_between[i]
        return Memory(ratio * x + np.sqrt(max(1 - ratio**2, 0.0)) * noise)

    return Solver(step)
