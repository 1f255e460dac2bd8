"""The Euler-Maruyama method along a flow, its score rescaled."""

from __future__ import annotations

from typing import Any

import numpy as np

from fdiff.plan import Grid, Memory, Solver


def rescaled_score(ratio: np.ndarray, noise_level: np.ndarray) -> Solver:
    """Euler-Maruyama along a flow with its score scaled, for samples of a lower temperature (RFD4-Proteina).

        x = x + ((x - r eps) / alpha - g r eps / sigma) dt + sqrt(2 g dt) noise,  dt = alpha_to - alpha

    One network call a step; stochastic where g > 0. With r = 1 and g = 0 it is Euler's method, of order 1; with r = 1
    it is of weak order 1. It keeps neither alpha nor sigma exactly.

    Args:
        ratio: (n,) r, by which the score is scaled at each row.
        noise_level: (n,) g, the rate at which noise is exchanged for score.
    """
    def step(i: int, grid: Grid, state: Memory, x0: Any, eps: Any, noise: Any) -> Memory:
        dt, scaled, g = grid.alpha_to[i] - grid.alpha[i], ratio[i] * eps, noise_level[i]
        drift = (state.x - scaled) / grid.alpha[i] - g / grid.sigma[i] * scaled
        return Memory(state.x + drift * dt + np.sqrt(2 * g * dt) * noise)

    return Solver(step, keeps_level=False, lands=False)
