"""Heun's method."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fdiff.plan import Grid, Solver


class HeunMemory(NamedTuple):
    """x, and where the step began with the slope there."""

    x: Any
    begin: Any
    slope: Any


def heun(gamma: float = 0.0, s_tmin: float = 0.0, s_tmax: float = np.inf, s_noise: float = 1.0) -> Solver:
    """Heun's method (Karras et al. 2022, algorithm 1). Order 2, two network calls a step.

        row 2i:      d = (x - x0) / sigma,  x_to = x + (sigma_to - sigma) d
        row 2i + 1:  d' = (x_to - x0) / sigma_to,  x_to = x + (sigma_to - sigma) (d + d') / 2

    For grids where alpha is linear in sigma: x = x0 + sigma eps, and flows. A step to sigma 0 has the first
    row only. Each row 2i + 1 goes from sigma_to to itself. gamma, s_tmin, s_tmax and s_noise are churn, as in
    `euler`.
    """
    def step(i: int, grid: Grid, state: HeunMemory, x0: Any, eps: Any, noise: Any) -> HeunMemory:
        sigma, sigma_to = grid.sigma[i], grid.sigma_to[i]
        if i % 2:
            began = hat(grid.sigma[i - 1])
            slope = (state.slope + (state.x - x0) / sigma) / 2
            return HeunMemory(state.begin + (sigma_to - began) * slope, 0 * x0, 0 * x0)
        level = hat(sigma)
        begin = state.x + s_noise * np.sqrt(level**2 - sigma**2) * noise
        slope = (state.x - x0) / level
        return HeunMemory(begin + (sigma_to - level) * slope, begin, slope)

    def hat(sigma: float) -> float:
        return (1 + gamma) * sigma if s_tmin <= sigma <= s_tmax else sigma

    return Solver(step, HeunMemory, keeps_level=not gamma, lands=not gamma)
