"""Consistency sampling: jump to x0, then noise it again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fdiff.plan import Grid, Memory, Pair, Solver


def consistency(skip: Callable[[float], Pair] | None = None) -> Solver:
    """Multistep consistency sampling (Song et al. 2023, algorithm 1), for networks distilled to know x0 at once.

        x = alpha_to x0 + sigma_to noise

    Stochastic, one network call a step; no order, since it follows no path.

    Args:
        skip: t -> (c_skip, c_out), after which x0 is c_skip x + c_out x0 (Luo et al. 2023, eq. 9).
    """
    def step(i: int, grid: Grid, state: Memory, x0: Any, eps: Any, noise: Any) -> Memory:
        if skip:
            c_skip, c_out = skip(grid.t[i])
            x0 = c_skip * state.x + c_out * x0
        return Memory(grid.alpha_to[i] * x0 + grid.sigma_to[i] * noise)

    return Solver(step, lands=skip is None, keeps_level=skip is None)
