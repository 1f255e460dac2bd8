"""DPM-Solver and DPM-Solver++, multistep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fdiff.plan import Grid, Solver
from fdiff.solvers.exponential import log_snr, past, phi
from fdiff.solvers.lms import slots

NOWHERE = 1e-12  # a step of less in lambda is one from a level to itself, but for rounding


def dpm_multistep(
    order: int | Sequence[int] = 2,
    *,
    noise_prediction: bool = False,
    stochastic: bool = False,
    heun: bool = False,
    clipped: bool = False,
    as_diffusers: bool = False,
) -> Solver:
    """DPM-Solver++ (Lu et al. 2022b, algorithm 2) and DPM-Solver (Lu et al. 2022a), multistep, order 1 to 3.

        x_to = c x + w0 D0 + w1 D1 + w2 D2 + std noise,   w_k as in `Weights`
        D0 = m_i,  D1 ~ h m',  D2 ~ h^2 m''               differences of the last m over lambda

    m is x0, or eps with `noise_prediction`; one network call a step. The first steps have the order that their
    history allows; one to a clean x, or from a level to itself, has order 1. The weak order of the stochastic solvers
    is 2 at most.

    Args:
        order: of all steps, or of each.
        noise_prediction: DPM-Solver in place of DPM-Solver++.
        stochastic: solve the reverse SDE in place of the ODE (SDE-DPM-Solver; Lu et al. 2022b, section 5).
        heun: weigh D1 in second-order steps by its integral; otherwise by w0 / 2 (midpoint).
        clipped: take eps anew from the clipped x0.
        as_diffusers: take third-order steps as diffusers does. It halves D2, as published code does, which makes
            their order 2; and if stochastic weighs it by alpha_to less than its integral, which makes it 1.
    """
    most = order if isinstance(order, int) else max(order)
    memory = slots("x", *(f"m{j}" for j in range(1, most)))

    def step(i: int, grid: Grid, state: Any, x0: Any, eps: Any, noise: Any) -> Any:
        m = model(i, grid, state.x, x0, eps, noise_prediction, clipped)
        known, now = past(i, grid, most), Weights.of(i, grid, i, noise_prediction, stochastic)
        allowed = order if isinstance(order, int) else order[i]
        used = min(allowed, len(known)) if np.isfinite(now.h) and now.h else 1
        x = now.carry * state.x + now.first * m + now.std * noise
        if used == 2:
            d1 = now.h / (known[0] - known[1]) * (m - state.m1)
            x = x + (now.weight(1) if heun else now.first / 2) * d1
        elif used == 3:
            r0, r1 = (known[0] - known[1]) / now.h, (known[1] - known[2]) / now.h
            d1, older = (m - state.m1) / r0, (state.m1 - state.m2) / r1
            d2 = (d1 - older) / (r0 + r1)
            extra = grid.alpha_to[i] if as_diffusers and stochastic else 0.0
            x = x + now.weight(1) * (d1 + r0 * d2) + (now.weight(2) - extra) * d2 * (1 if as_diffusers else 2)
        return memory(x, *(m, *state[1:])[: most - 1])

    return Solver(step, memory, keeps_level=not (stochastic and noise_prediction))


class Weights(NamedTuple):
    """What a step from one level to another, h apart in lambda, weighs its parts with.

        x0, ODE   c = sigma_to / sigma           scale = alpha_to    z = -h    std = 0
        x0, SDE   c = sigma_to / sigma exp(-h)   scale = alpha_to    z = -2 h  std = sigma_to sqrt(1 - exp(-2 h))
        eps, ODE  c = alpha_to / alpha           scale = sigma_to    z = h     std = 0
        eps, SDE  c = alpha_to / alpha           scale = 2 sigma_to  z = h     std = sigma_to sqrt(exp(2 h) - 1)

    The k-th derivative of m has weight -scale z phi_{k+1}(z), the integral of its Taylor term; `first` is that of
    m itself, which stays finite where sigma_to is 0.
    """

    h: float
    carry: float
    first: float
    scale: float
    z: float
    std: float

    @classmethod
    def of(cls, i: int, grid: Grid, source: int, noise_prediction: bool, stochastic: bool) -> Weights:
        """The step from the level of row `source` to that which row i reaches."""
        alpha, sigma, alpha_to, sigma_to = grid.alpha[source], grid.sigma[source], grid.alpha_to[i], grid.sigma_to[i]
        h = log_snr(alpha_to, sigma_to) - log_snr(alpha, sigma)
        h = 0.0 if abs(h) < NOWHERE else h
        if noise_prediction:
            std = sigma_to * np.sqrt(np.expm1(2 * h)) if stochastic else 0.0
            gain = 1 + stochastic
            first = gain * (sigma_to - alpha_to / alpha * sigma)
            return cls(h, alpha_to / alpha, first, gain * sigma_to, h, std)
        std = sigma_to * np.sqrt(-np.expm1(-2 * h)) if stochastic else 0.0
        carry = sigma_to / sigma * (np.exp(-h) if stochastic else 1.0)
        z = -(1 + stochastic) * h
        return cls(h, carry, -alpha_to * np.expm1(z), alpha_to, z, std)

    def weight(self, k: int) -> float:
        """Of the k-th derivative, k = 1 or 2."""
        return -self.scale * self.z * phi(k + 1, self.z)


def model(i: int, grid: Grid, x: Any, x0: Any, eps: Any, noise_prediction: bool, clipped: bool) -> Any:
    """What the solver integrates: x0, or eps, taken anew from x0 where that is clipped."""
    if not noise_prediction:
        return x0
    return (x - grid.alpha[i] * x0) / grid.sigma[i] if clipped else eps
