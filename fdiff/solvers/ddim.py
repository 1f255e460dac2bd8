"""DDIM, with all that lies between a deterministic and an ancestral step."""

from __future__ import annotations

from typing import Any

import numpy as np

from fdiff.plan import Grid, Memory, Solver, unit_interval


def ddim(eta: float = 0.0, *, clipped_model_output: bool = False) -> Solver:
    """DDIM (Song et al. 2021, eq. 12 and 16). Order 1; eta 0 is Euler, eta 1 is DDPM and Euler ancestral.

        std^2 = eta^2 sigma_to^2 / sigma^2 (sigma^2 - alpha^2 / alpha_to^2 sigma_to^2)
        x     = alpha_to x0 + sqrt(sigma_to^2 - std^2) eps + std noise

    Args:
        eta: 0 (deterministic) to 1 (ancestral).
        clipped_model_output: take eps anew from the clipped x0.

    Raises ValueError for an eta outside [0, 1].
    """
    eta = unit_interval("eta", eta)

    def step(i: int, grid: Grid, state: Memory, x0: Any, eps: Any, noise: Any) -> Memory:
        _, alpha, sigma, alpha_to, sigma_to = (column[i] for column in grid)
        if clipped_model_output:
            eps = (state.x - alpha * x0) / sigma
        std = eta * ancestral_std(alpha, sigma, alpha_to, sigma_to)
        return Memory(alpha_to * x0 + np.sqrt(max(sigma_to**2 - std**2, 0.0)) * eps + std * noise)

    return Solver(step)


def ancestral_std(alpha: float, sigma: float, alpha_to: float, sigma_to: float) -> float:
    """Deviation of an ancestral step's noise: the posterior of x_to given x and x0 (Ho et al. 2020, eq. 7)."""
    if sigma == 0 or alpha_to == 0:
        return 0.0
    variance = (sigma_to / sigma) ** 2 * (sigma**2 - (alpha / alpha_to * sigma_to) ** 2)
    return float(np.sqrt(max(variance, 0.0)))
