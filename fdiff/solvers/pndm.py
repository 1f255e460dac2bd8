"""PNDM: linear multistep and Runge-Kutta rules on eps, each step taken by DDIM's formula."""

from __future__ import annotations

from typing import Any, NamedTuple

from fdiff.plan import Grid, Solver

ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


class Slopes(NamedTuple):
    """x and the three last slopes; between the two first rows, e3 holds the x from which both depart."""

    x: Any
    e1: Any
    e2: Any
    e3: Any


class WarmUp(NamedTuple):
    """The same, the x from which a Runge-Kutta step departs, and the weighted sum of its slopes."""

    x: Any
    e1: Any
    e2: Any
    e3: Any
    origin: Any
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
            return Slopes(move(grid, i, start, state.e3, (e + state.e1) / 2), state.e1, 0 * e, 0 * e)
        slopes = (e, state.e1, state.e2, state.e3)
        weights = ADAMS_BASHFORTH[min(max(i, 1), 4) - 1]
        combined = sum(w * s for w, s in zip(weights, slopes, strict=False))
        return Slopes(move(grid, i, level, state.x, combined), e, state.e1, state.e2 if i else state.x)

    def warm_up(i: int, grid: Grid, state: WarmUp, x0: Any, eps: Any, noise: Any) -> WarmUp:
        if i >= 12:
            return WarmUp(*plms(i, grid, Slopes(*state[:4]), x0, eps, noise), 0 * eps, 0 * eps)
        e, stage = slope(i, grid, x0, eps), i % 4
        if stage == 0:
            state = WarmUp(state.x, e, state.e1, state.e2, state.x, 0 * e)
        first = i - stage
        total = state.total + (1 / 6, 1 / 3, 1 / 3, 1 / 6)[stage] * e
        moved = move(grid, i, (grid.alpha[first], grid.sigma[first]), state.origin, total if stage == 3 else e)
        return state._replace(x=moved, total=total)

    exact = not velocity and restart is None
    return Solver(warm_up, WarmUp, exact, exact) if prk else Solver(plms, Slopes, exact, exact)
