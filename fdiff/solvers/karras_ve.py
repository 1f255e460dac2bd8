"""Karras et al.'s stochastic sampler."""

from __future__ import annotations

from typing import Any

import numpy as np

from fdiff.plan import Grid, Solver
from fdiff.solvers.heun import HeunMemory


def karras_ve(s_noise: float = 1.0) -> Solver:
    """Heun's method with churn (Karras et al. 2022, algorithm 2). Order 2 (weak with churn), two network calls a step.

        row 3i:      x_hat = x + s_noise sqrt(hat^2 - sigma^2) noise              no network call
        row 3i + 1:  d = (x_hat - x0) / hat,  x_to = x_hat + (sigma_to - hat) d
        row 3i + 2:  d' = (x_to - x0) / sigma_to,  x_to = x_hat + (sigma_to - hat) (d + d') / 2

    For x = x0 + sigma eps; the grid says how far row 3i raises the level. A step to sigma 0 has no third row.
    """
    def step(i: int, grid: Grid, state: HeunMemory, x0: Any, eps: Any, noise: Any) -> HeunMemory:
        sigma, sigma_to = grid.sigma[i], grid.sigma_to[i]
        if i % 3 == 0:
            x = state.x + s_noise * np.sqrt(sigma_to**2 - sigma**2) * noise
            return HeunMemory(x, 0 * x, 0 * x)
        slope = (state.x - x0) / sigma
        if i % 3 == 1:
            return HeunMemory(state.x + (sigma_to - sigma) * slope, state.x, slope)
        x = state.begin + (sigma_to - grid.sigma[i - 1]) * (state.slope + slope) / 2
        return HeunMemory(x, 0 * x, 0 * x)

    return Solver(step, HeunMemory, keeps_level=s_noise == 1)
