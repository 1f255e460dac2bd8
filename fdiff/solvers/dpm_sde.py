"""DPM-Solver++ for the SDE, with one Brownian path through both stages."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fdiff.plan import Grid, Solver
from fdiff.solvers.ddim import ancestral_std


class SdeMemory(NamedTuple):
    """x, where the step began, and the noise of its first half."""

    x: Any
    begin: Any
    half: Any


def dpm_sde(s_noise: float = 1.0) -> Solver:
    """DPM-Solver++ (SDE), second-order singlestep with its middle at half the step in log sigma (k-diffusion).

        row 2i:      x_mid = (down / sigma) x + (1 - down / sigma) x0     + std noise over [sigma, mid]
        row 2i + 1:  x_to  = (down / sigma) x + (1 - down / sigma) x0_mid + std noise over [sigma, sigma_to]

    with down^2 + std^2 = sigma_to^2, std that of an ancestral step. Both noises are increments of one Brownian path
    in sigma, each divided by the root of its length; so the second is the first and a fresh, independent part:

        noise over [sigma, sigma_to] = (sqrt(sigma - mid) first + sqrt(mid - sigma_to) fresh) / sqrt(sigma - sigma_to)

    Order 2 (weak), two network calls a step; stochastic. For x = x0 + sigma eps. A step to sigma 0 has the first
    row only.
    """
    def step(i: int, grid: Grid, state: SdeMemory, x0: Any, eps: Any, noise: Any) -> SdeMemory:
        mid, sigma_to = grid.sigma[i], grid.sigma_to[i]
        if i % 2 == 0:
            return SdeMemory(jump(mid, sigma_to, state.x, x0, noise), state.x, noise)
        sigma = grid.sigma[i - 1]
        path = np.sqrt(sigma - mid) * state.half + np.sqrt(mid - sigma_to) * noise
        x = jump(sigma, sigma_to, state.begin, x0, path / np.sqrt(sigma - sigma_to))
        return SdeMemory(x, 0 * x0, 0 * x0)

    def jump(sigma: float, sigma_to: float, x: Any, x0: Any, noise: Any) -> Any:
        std = ancestral_std(1.0, sigma, 1.0, sigma_to)
        down = np.sqrt(sigma_to**2 - std**2)
        return down / sigma * x + (1 - down / sigma) * x0 + s_noise * std * noise

    return Solver(step, SdeMemory, keeps_level=s_noise == 1)
