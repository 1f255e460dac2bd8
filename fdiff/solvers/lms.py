"""Linear multistep methods."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np

from fdiff.plan import Grid, Solver


def lms(order: int = 4) -> Solver:
    """The Adams-Bashforth method for steps of any length (Hairer et al. 1993, III.5; k-diffusion's LMS).

        x = x + sum_j c_j d_j,  d = (x - x0) / sigma,  c_j = integral of the j-th Lagrange polynomial

    Order `order`, one network call a step. The first steps have as many slopes as there are, so a run of many
    steps from rest is of order 2 at most. For grids where alpha is linear in sigma: x = x0 + sigma eps, and flows.
    """
    memory = slots("x", *(f"slope_{j}" for j in range(1, order)))

    def step(i: int, grid: Grid, state: Any, x0: Any, eps: Any, noise: Any) -> Any:
        known = min(i + 1, order)
        slopes = [(state.x - x0) / grid.sigma[i], *state[1:]]
        weights = lagrange_integrals(grid.sigma[i - known + 1 : i + 1][::-1], grid.sigma[i], grid.sigma_to[i])
        x = state.x + sum(w * d for w, d in zip(weights, slopes[:known], strict=True))
        return memory(x, *slopes[: order - 1])

    return Solver(step, memory)


def slots(*names: str) -> Any:
    """A NamedTuple of these fields, for memory whose size depends on the order."""
    return namedtuple("slots", names)


def lagrange_integrals(nodes: np.ndarray, begin: float, end: float) -> np.ndarray:
    """The integral from begin to end of each Lagrange polynomial over the nodes (k,), by Gauss's exact rule."""
    points, weights = np.polynomial.legendre.leggauss(len(nodes))
    s = begin + (end - begin) * (points + 1) / 2
    basis = [np.prod([(s - q) / (p - q) for q in np.delete(nodes, j)], axis=0) * np.ones_like(s)
             for j, p in enumerate(nodes)]
    return np.array(basis) @ weights * (end - begin) / 2
