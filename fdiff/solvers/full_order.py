"""A predictor and a corrector along flow time that share each network call, of full order to the last step."""

from __future__ import annotations

from typing import Any

import numpy as np

from fdiff.plan import Grid, Solver
from fdiff.solvers.lms import slots

POINTS, WEIGHTS = np.polynomial.legendre.leggauss(48)
NOWHERE = 1e-12  # two levels nearer than this in flow time are one


def full_order(order: int = 4) -> Solver:
    """Adams' methods for x0 as a polynomial in flow time, s = sigma / (alpha + sigma). Order `order` + 1.

        x_to / sigma_to = x / sigma + integral of x0 d(alpha / sigma)
        x0(s) ~ the polynomial through the last `order` x0, and to correct a step through the one at its end as well

    The rest is exact (Lu et al. 2022b, eq. 9). In flow time, unlike in log-SNR, a clean x is a finite step away: there
    x is the polynomial at s = 0, so the last step is as good as the others. A step's correction needs the network's
    answer at its end, which serves the next step too (Zhao et al. 2023), so that there is one network call a step. The
    first steps have the order that their history allows.
    """
    memory = slots("x", *(f"m{j}" for j in range(1, order + 1)))

    def step(i: int, grid: Grid, state: Any, x0: Any, eps: Any, noise: Any) -> Any:
        x, ms = state.x, (x0, *state[1:])
        if i:
            before = nodes(i - 1, grid, order)
            end = flow_time(grid.alpha[i], grid.sigma[i])
            if abs(end - flow_time(grid.alpha_to[i - 1], grid.sigma_to[i - 1])) < NOWHERE and end < before[0] - NOWHERE:
                now = weigh(np.append(end, before), before[0], end)
                now[1:] -= weigh(before, before[0], end)
                x = x + grid.alpha[i] * total(now, ms)
        known = nodes(i, grid, order)
        end = flow_time(grid.alpha_to[i], grid.sigma_to[i])
        carried = grid.sigma_to[i] / grid.sigma[i] * x
        return memory(carried + grid.alpha_to[i] * total(weigh(known, known[0], end), ms), *ms[:order])

    return Solver(step, memory)


def flow_time(alpha: float, sigma: float) -> float:
    """s = sigma / (alpha + sigma), 1 for pure noise and 0 for a clean x."""
    return float(sigma / (alpha + sigma))


def nodes(i: int, grid: Grid, most: int) -> np.ndarray:
    """s at row i, row i - 1, ...: at most `most`, as far as it rises from each to the one before."""
    s = [flow_time(grid.alpha[i], grid.sigma[i])]
    for j in range(i - 1, max(i - most, -1), -1):
        s.append(flow_time(grid.alpha[j], grid.sigma[j]))
        if s[-1] < s[-2] + NOWHERE:
            return np.array(s[:-1])
    return np.array(s)


def weigh(known: np.ndarray, begin: float, end: float) -> np.ndarray:
    """The integral over r = alpha / sigma = 1 / s - 1, from `begin` to `end`, of each Lagrange polynomial over `known`.

    As a share of r at the end; where that is a clean x, the polynomials there, which is the limit.
    """
    if end <= 0:
        s, shares = np.zeros(1), np.ones(1)
    else:
        s = begin + (end - begin) * (POINTS + 1) / 2
        shares = WEIGHTS / 2 * (begin - end) / s**2 * end / (1 - end)
    basis = [np.prod([(s - q) / (p - q) for q in np.delete(known, j)], axis=0) * np.ones_like(s)
             for j, p in enumerate(known)]
    return np.array(basis) @ shares


def total(weights: np.ndarray, ms: Any) -> Any:
    """The weighted sum of as many m as there are weights."""
    return sum((w * m for w, m in zip(weights, ms, strict=False)), start=0.0)
