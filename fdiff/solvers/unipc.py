"""UniPC: a predictor and a corrector of any order that share each network call."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from fdiff.plan import Grid, Solver
from fdiff.solvers.dpm_multistep import Weights, model
from fdiff.solvers.exponential import past, phi
from fdiff.solvers.lms import slots


def unipc(
    order: int | Sequence[int] = 2,
    *,
    noise_prediction: bool = False,
    bh1: bool = False,
    uncorrected: Collection[int] = (),
    clipped: bool = False,
) -> Solver:
    """UniPC (Zhao et al. 2023, algorithms 1 and 2). Order `order` + 1 where corrected, one network call a step.

        x_to = c x - s (exp(z) - 1) m_0 - s B(z) sum_k a_k (m_k - m_0) / r_k,   r_k = (lambda_k - lambda_0) / h
        sum_k a_k r_k^(j-1) = j! z phi_{j+1}(z) / B(z)  for each j,   B(z) = exp(z) - 1, or z with `bh1`

    m is x0 (c = sigma_to / sigma, s = alpha_to, z = -h) or eps (c = alpha_to / alpha, s = sigma_to, z = h), m_0 the
    newest. The corrector takes the step again with one more m, the network's answer at its end (r = 1), which
    then serves the next step. The first steps have the order that their history allows, and a step to a clean x
    has order 1. A single a_k is 1/2, as published.

    Args:
        order: of all steps, or of each.
        noise_prediction: solve for eps in place of x0.
        bh1: B(z) = z.
        uncorrected: the steps that are not corrected.
        clipped: take eps anew from the clipped x0.
    """
    most = order if isinstance(order, int) else max(order)
    memory = slots("x", *(f"m{j}" for j in range(1, most + 1)))

    def residual(i: int, grid: Grid, now: Weights, ms: Sequence[Any], end: Any = None) -> Any:
        """The sum over k for the step of row i, whose newest m is ms[0]; `end` is m at its end, to correct it."""
        if not np.isfinite(now.h) or now.h == 0:
            return 0.0
        known = past(i, grid, order if isinstance(order, int) else order[i])
        r = (known[1:] - known[0]) / now.h
        slopes = [(m - ms[0]) / r_k for m, r_k in zip(ms[1:], r, strict=False)]
        if end is not None:
            r, slopes = np.append(r, 1.0), [*slopes, end - ms[0]]
        base = now.z if bh1 else np.expm1(now.z)
        a = np.array([0.5])
        if len(r) > 1:
            j = np.arange(1, len(r) + 1)
            wanted = [math.factorial(k) * now.z * phi(k + 1, now.z) / base for k in range(1, len(r) + 1)]
            a = np.linalg.solve(r ** (j[:, None] - 1), wanted)
        return sum((-now.scale * base * a_k * slope for a_k, slope in zip(a, slopes, strict=False)), start=0.0)

    def step(i: int, grid: Grid, state: Any, x0: Any, eps: Any, noise: Any) -> Any:
        m, before = model(i, grid, state.x, x0, eps, noise_prediction, clipped), state[1:]
        now, x = Weights.of(i, grid, i, noise_prediction, stochastic=False), state.x
        if i and i - 1 not in uncorrected:
            last = Weights.of(i - 1, grid, i - 1, noise_prediction, stochastic=False)
            x = x + residual(i - 1, grid, last, before, m) - residual(i - 1, grid, last, before)
        ms = (m, *before[:-1])
        return memory(now.carry * x + now.first * m + residual(i, grid, now, ms), *ms)

    return Solver(step, memory)
