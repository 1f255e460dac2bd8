"""Langevin dynamics, annealed."""

from __future__ import annotations

from typing import Any

import numpy as np

from fdiff.plan import Grid, Memory, Solver


def langevin(step_size: float) -> Solver:
    """One step of Langevin dynamics at each level, in x = x0 + sigma eps (Song & Ermon 2019, algorithm 1).

        x = x - s sigma eps + sqrt(2 s) sigma noise

    Stochastic, one network call a step. It stays at the level that it is at and follows the next one only so far as
    s, `step_size`, lets it, so many steps are needed, and their number has no order.
    """
    def step(i: int, grid: Grid, state: Memory, x0: Any, eps: Any, noise: Any) -> Memory:
        sigma = grid.sigma[i]
        return Memory(state.x - step_size * sigma * eps + np.sqrt(2 * step_size) * sigma * noise)

    return Solver(step, keeps_level=False)
