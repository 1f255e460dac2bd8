"""Reverse diffusion sampling."""

from __future__ import annotations

from typing import Any

import numpy as np

from fdiff.plan import Grid, Memory, Solver


def reverse_diffusion() -> Solver:
    """The reverse diffusion predictor in x = x0 + sigma eps (Song et al. 2021b, appendix E and algorithm 2).

        x = x - (sigma^2 - sigma_to^2) / sigma eps + sqrt(sigma^2 - sigma_to^2) noise

    Order 1 (weak), one network call a step; stochastic but for the last step, which leaves the noise out. The noise
    is that of going forward, a little more than keeps the level.
    """
    def step(i: int, grid: Grid, state: Memory, x0: Any, eps: Any, noise: Any) -> Memory:
        sigma, variance = grid.sigma[i], grid.sigma[i] ** 2 - grid.sigma_to[i] ** 2
        std = np.sqrt(variance) if i + 1 < len(grid.t) else 0.0
        return Memory(state.x - variance / sigma * eps + std * noise)

    return Solver(step, keeps_level=False)
