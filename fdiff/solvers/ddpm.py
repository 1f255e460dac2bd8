"""DDPM: draw from the posterior of the next sample given x and x0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fdiff.plan import Grid, Memory, Solver


def ddpm(std: Sequence[float] | np.ndarray | None = None) -> Solver:
    """DDPM (Ho et al. 2020, eq. 6 and 7). Order 1, stochastic, one network call a step.

        a    = alpha / alpha_to,   v = sigma^2 - a^2 sigma_to^2          the forward step's variance
        x    = alpha_to v / sigma^2 x0 + a sigma_to^2 / sigma^2 x + std noise

    Unlike DDIM with eta 1, which it equals where x0 is not clipped, the mean is made of x and x0.

    Args:
        std: deviation of the fresh noise in each row; the posterior's, sigma_to / sigma sqrt(v), by default.
    """
    def step(i: int, grid: Grid, state: Memory, x0: Any, eps: Any, noise: Any) -> Memory:
        _, alpha, sigma, alpha_to, sigma_to = (column[i] for column in grid)
        a, v = alpha / alpha_to, sigma**2 - (alpha / alpha_to * sigma_to) ** 2
        fresh = posterior_std(grid)[i] if std is None else std[i]
        return Memory(alpha_to * v / sigma**2 * x0 + a * (sigma_to / sigma) ** 2 * state.x + fresh * noise)

    return Solver(step, keeps_level=std is None)


def forward_std(grid: Grid) -> np.ndarray:
    """(n,) deviation of the noise that the forward process adds going from x_to to x: sqrt(v)."""
    return np.sqrt(np.maximum(grid.sigma**2 - (grid.alpha / grid.alpha_to * grid.sigma_to) ** 2, 0.0))


def posterior_std(grid: Grid) -> np.ndarray:
    """(n,) deviation of the next sample given x and x0: sigma_to / sigma sqrt(v)."""
    return grid.sigma_to / grid.sigma * forward_std(grid)
