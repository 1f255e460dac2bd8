"""PNDM: linear multistep and Runge-Kutta rules on eps, each step taken by DDIM's formula."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fdiff.plan import Grid, Solver

ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


class Slopes(NamedTuple):
    """x, the x from which a step departs, and the three last slopes."""

    x: Any
    origin: Any
    e1: Any
    e2: Any
    e3: Any


class WarmUp(NamedTuple):
    """Slopes, and the weighted sum of those of an unfinished Runge-Kutta step."""

    x: Any
    origin: Any
    e1: Any
    e2: Any
    e3: Any
    total: Any


def pndm(*, prk: bool = False, restart: tuple[Any, Any] | None = None, velocity: bool = False) -> Solver:
    """PNDM (Liu et al. 2022, eq. 11 to 13 and algorithm 2). Order 2, one network call a step after its warm-up.

        x_to = alpha_to / alpha x + (sigma_to - alpha_to sigma / alpha) e        DDIM, the transfer part
        e    = (55 e_i - 59 e_{i-1} + 37 e_{i-2} - 9 e_{i-3}) / 24                the gradient part

    The coefficients are those of equal steps in t. Without `prk` the first step is taken twice, the second
    time with the mean of two slopes, and the next two steps use as many slopes as there are (PLMS). With `prk`
    the first three steps are Runge-Kutta steps of four rows: half a step, half a step, a step, the step.

    Args:
        prk: warm up with Runge-Kutta steps.
        restart: (alpha, sigma) that the formula takes the step that is repeated to depart from, where that is
            not the first row's level.
        velocity: combine velocities in place of eps, and turn the result into eps where the step departs, as
            diffusers does for v_prediction; it lowers the order to 1.
    """
    def slope(i: int, grid: Grid, x0: Any, eps: Any) -> Any:
        return grid.alpha[i] * eps - grid.sigma[i] * x0 if velocity else eps

    def move(grid: Grid, i: int, level: tuple[Any, Any], x: Any, e: Any) -> Any:
        alpha, sigma = level
        e = alpha * e + sigma * x if velocity else e
        return grid.alpha_to[i] / alpha * x + (grid.sigma_to[i] - grid.alpha_to[i] * sigma / alpha) * e

    def plms(i: int, grid: Grid, state: Slopes, x0: Any, eps: Any, noise: Any) -> Slopes:
        level, e = (grid.alpha[i], grid.sigma[i]), slope(i, grid, x0, eps)
        if i == 1:
            start = (grid.alpha[0], grid.sigma[0]) if restart is None else restart
            return state._replace(x=move(grid, i, start, state.origin, (e + state.e1) / 2))
        slopes = (e, state.e1, state.e2, state.e3)
        weights = ADAMS_BASHFORTH[min(max(i, 1), 4) - 1]
        combined = sum(w * s for w, s in zip(weights, slopes, strict=False))
        return Slopes(move(grid, i, level, state.x, combined), state.x, *slopes[:3])

    def warm_up(i: int, grid: Grid, state: WarmUp, x0: Any, eps: Any, noise: Any) -> WarmUp:
        if i >= 12:
            return WarmUp(*plms(i, grid, Slopes(*state[:5]), x0, eps, noise), np.zeros_like(state.x))
        e, stage = slope(i, grid, x0, eps), i % 4
        if stage == 0:
            state = WarmUp(state.x, state.x, e, state.e1, state.e2, np.zeros_like(state.x))
        first = i - stage
        total = state.total + (1 / 6, 1 / 3, 1 / 3, 1 / 6)[stage] * e
        moved = move(grid, i, (grid.alpha[first], grid.sigma[first]), state.origin, total if stage == 3 else e)
        return state._replace(x=moved, total=total)

    exact = not velocity and restart is None
    return Solver(warm_up, WarmUp, exact, exact) if prk else Solver(plms, Slopes, exact, exact)
