"""DPM-Solver-2 by the midpoint in log sigma."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fdiff.plan import Grid, Solver
from fdiff.solvers.ddim import ancestral_std


class MidpointMemory(NamedTuple):
    """x, and where the step began."""

    x: Any
    begin: Any


def dpm_2(eta: float = 0.0) -> Solver:
    """The midpoint method in log sigma (DPM-Solver-2, Lu et al. 2022, algorithm 1; k-diffusion's dpm_2).

        row 2i:      x_mid = x + (sigma_mid - sigma) d,  d = (x - x0) / sigma
        row 2i + 1:  x_to  = x + (sigma_down - sigma) d_mid + std noise,  sigma_down^2 + std^2 = sigma_to^2

    Order 2 (weak where stochastic), two network calls a step; stochastic where eta > 0 (1 is ancestral). The grid
    says where the middle is: sqrt(sigma sigma_down). For x = x0 + sigma eps. A step to sigma 0 has the first row only.
    """
    def step(i: int, grid: Grid, state: MidpointMemory, x0: Any, eps: Any, noise: Any) -> MidpointMemory:
        sigma, sigma_to = grid.sigma[i], grid.sigma_to[i]
        slope = (state.x - x0) / sigma
        if i % 2 == 0:
            return MidpointMemory(state.x + (sigma_to - sigma) * slope, state.x)
        began = grid.sigma[i - 1]
        std = eta * ancestral_std(1.0, began, 1.0, sigma_to)
        down = np.sqrt(sigma_to**2 - std**2)
        return MidpointMemory(state.begin + (down - began) * slope + std * noise, 0 * x0)

    return Solver(step, MidpointMemory)
