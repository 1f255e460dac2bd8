"""DPM-Solver and DPM-Solver++, singlestep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from fdiff.plan import Grid, Solver
from fdiff.solvers.dpm_multistep import Weights, model
from fdiff.solvers.exponential import log_snr


class Stages(NamedTuple):
    """x, the x from which the present step departs, and what the two last network calls gave."""

    x: Any
    origin: Any
    m1: Any
    m2: Any


def dpm_singlestep(
    stages: Sequence[int],
    *,
    noise_prediction: bool = False,
    stochastic: bool = False,
    heun: bool = False,
    clipped: bool = False,
    as_diffusers: bool = False,
) -> Solver:
    """DPM-Solver-2 and -3 (Lu et al. 2022a, algorithms 1 and 2), DPM-Solver++2S (2022b, algorithm 1).

        x_to = c x_origin + w0 D0 + w1 D1 + w2 D2 + std noise,   w_k as in `fdiff.solvers.dpm_multistep.Weights`
        D0 = m at the origin,  D1 ~ h m',  D2 ~ h^2 m''           differences of the m since then

    One network call a row. The k-th row since the origin steps from there to its own end with order k, so k rows
    make a step of order k; row order 1 makes x the new origin. As each row draws noise of its own, the weak order of
    stochastic steps is 1.

    Args:
        stages: the order of each row, as 1, 2, 3, 1, 2, 3; lowered where there are fewer rows before it.
        noise_prediction: solve for eps (DPM-Solver) in place of x0 (DPM-Solver++).
        stochastic: solve the reverse SDE in place of the ODE.
        heun: weigh D1 and D2 by their integrals; otherwise by midpoint rules.
        clipped: take eps anew from the clipped x0.
        as_diffusers: weigh D2 in stochastic third-order steps by alpha_to less than its integral, with `heun`.
    """
    def step(i: int, grid: Grid, state: Stages, x0: Any, eps: Any, noise: Any) -> Stages:
        m = model(i, grid, state.x, x0, eps, noise_prediction, clipped)
        order = min(stages[i], i + 1)
        source = i - order + 1
        origin = state.x if order == 1 else state.origin
        now = Weights.of(i, grid, source, noise_prediction, stochastic)
        known = (m, state.m1, state.m2)[:order][::-1]
        x = now.carry * origin + now.first * known[0] + now.std * noise
        r = [(log_snr(grid.alpha[j], grid.sigma[j]) - log_snr(grid.alpha[source], grid.sigma[source])) / now.h
             for j in range(source + 1, i + 1)] if now.h else []
        if order == 2 and min(r, default=0) > 0:
            x = x + (now.weight(1) if heun else now.first / 2) * (m - state.m1) / r[0]
        elif order == 3 and min(r, default=0) > 0 and r[1] > r[0]:
            near, far = (known[1] - known[0]) / r[0], (known[2] - known[0]) / r[1]
            if heun:
                d2 = 2 * (far - near) / (r[1] - r[0])
                extra = grid.alpha_to[i] if as_diffusers and stochastic else 0.0
                x = x + now.weight(1) * (r[1] * near - r[0] * far) / (r[1] - r[0]) + (now.weight(2) - extra) * d2
            else:
                x = x + now.weight(1) * far
        return Stages(x, origin, m, state.m1)

    return Solver(step, Stages, keeps_level=not stochastic)
