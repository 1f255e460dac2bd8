"""Euler's ancestral method along a flow."""

from __future__ import annotations

from typing import Any

import numpy as np

from fdiff.plan import Grid, Memory, Solver, unit_interval


def ancestral_flow(eta: float = 1.0, s_noise: float = 1.0) -> Solver:
    """Euler's method to below the next level, then noise up to it, where alpha = 1 - sigma (ComfyUI's RF sampler).

        down = sigma_to (1 + (sigma_to / sigma - 1) eta),  kept = alpha_to down / (1 - down)
        x    = alpha_to x0 + kept eps + s_noise sqrt(sigma_to^2 - kept^2) noise

    Order 1, one network call a step; stochastic unless eta is 0, which is `ddim`.

    Args:
        eta: 0 (deterministic) to 1.
        s_noise: scale of the noise; other than 1, it does not add up to sigma_to.

    Raises ValueError for an eta outside [0, 1].
    """
    eta = unit_interval("eta", eta)

    def step(i: int, grid: Grid, state: Memory, x0: Any, eps: Any, noise: Any) -> Memory:
        sigma, alpha_to, sigma_to = grid.sigma[i], grid.alpha_to[i], grid.sigma_to[i]
        down = sigma_to * (1 + (sigma_to / sigma - 1) * eta)
        kept = alpha_to * down / (1 - down) if down else 0.0
        std = np.sqrt(max(sigma_to**2 - kept**2, 0.0)) if eta else 0.0  # where only rounding is left
        return Memory(alpha_to * x0 + kept * eps + s_noise * std * noise)

    return Solver(step, keeps_level=s_noise == 1)
