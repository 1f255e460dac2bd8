"""Improved PNDM: Adams-Bashforth slopes and no warm-up."""

from __future__ import annotations

from typing import Any, NamedTuple

from fdiff.plan import Grid, Solver
from fdiff.solvers.pndm import ADAMS_BASHFORTH


class PastSlopes(NamedTuple):
    """x and the three last slopes."""

    x: Any
    e1: Any
    e2: Any
    e3: Any


def ipndm() -> Solver:
    """Improved PNDM, fourth-order slopes (Liu et al. 2022, eq. 12; iPNDM in Zhang & Chen 2023). One call a step.

        x_to = alpha_to / alpha x + (sigma_to - alpha_to sigma / alpha) e
        e    = (55 e_i - 59 e_{i-1} + 37 e_{i-2} - 9 e_{i-3}) / 24

    The coefficients are those of equal steps in t, so the order is 2; the first steps have as many slopes as there
    are, and the first is DDIM's.
    """
    def step(i: int, grid: Grid, state: PastSlopes, x0: Any, eps: Any, noise: Any) -> PastSlopes:
        _, alpha, sigma, alpha_to, sigma_to = (column[i] for column in grid)
        slopes = (eps, state.e1, state.e2, state.e3)
        weights = ADAMS_BASHFORTH[min(i, 3)]
        e = sum(w * s for w, s in zip(weights, slopes, strict=False))
        x = alpha_to / alpha * (state.x - sigma * e) + sigma_to * e if i else alpha_to * x0 + sigma_to * eps
        return PastSlopes(x, *slopes[:3])

    return Solver(step, PastSlopes)
