"""RePaint: DDIM steps down, and forward steps back up."""

from __future__ import annotations

from typing import Any

import numpy as np

from fdiff.plan import Grid, Memory, Solver
from fdiff.solvers.ddim import ddim


def repaint(eta: float = 0.0) -> Solver:
    """RePaint's steps (Lugmayr et al. 2022, algorithm 1). Order 1, stochastic.

        down  DDIM with `eta`
        up    x = a x + sqrt(sigma_to^2 - a^2 sigma^2) noise,  a = alpha_to / alpha

    A row goes up where it ends at more noise than it starts from; it needs no network call.
    """
    down = ddim(eta)

    def step(i: int, grid: Grid, state: Memory, x0: Any, eps: Any, noise: Any) -> Memory:
        _, alpha, sigma, alpha_to, sigma_to = (column[i] for column in grid)
        if sigma_to * alpha <= sigma * alpha_to:
            return down.step(i, grid, state, x0, eps, noise)
        a = alpha_to / alpha
        return Memory(a * state.x + np.sqrt(sigma_to**2 - (a * sigma) ** 2) * noise)

    return Solver(step)
