"""The Euler-Maruyama method for the reverse SDE."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fdiff.plan import Grid, Memory, Solver


def euler_maruyama(beta: Callable[[float], float], dt: float) -> Solver:
    """Euler-Maruyama for the reverse of dx = -beta/2 x dt + sqrt(beta) dw (Song et al. 2021b, eq. 6 and 11).

        x = x + (beta / 2 x - beta / sigma eps) dt + sqrt(beta dt) noise

    Order 1 (weak), one network call a step; stochastic but for the last step, which leaves the noise out
    (Jolicoeur-Martineau et al. 2021). It keeps neither alpha nor sigma exactly.

    Args:
        beta: its value at time t.
        dt: the length of a step.
    """
    def step(i: int, grid: Grid, state: Memory, x0: Any, eps: Any, noise: Any) -> Memory:
        rate = beta(grid.t[i])
        x = state.x + (rate / 2 * state.x - rate / grid.sigma[i] * eps) * dt
        return Memory(x + np.sqrt(rate * dt) * noise if i + 1 < len(grid.t) else x)

    return Solver(step, keeps_level=False, lands=False)
