"""SA-Solver: stochastic Adams-Bashforth steps, corrected by stochastic Adams-Moulton."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fdiff.plan import Grid, Solver
from fdiff.solvers.dpm_multistep import model
from fdiff.solvers.exponential import lagrange_weights, log_snr, past
from fdiff.solvers.lms import slots


def sa(
    predictor: Sequence[int],
    corrector: Sequence[int],
    tau: Sequence[float],
    *,
    noise_prediction: bool = False,
    clipped: bool = False,
) -> Solver:
    """SA-Solver (Xue et al. 2023, algorithm 1, eq. 14 and 17), stochastic where tau > 0, one network call a step.

        x0    x_to = sigma_to / sigma exp(-tau^2 h) x + sum_j b_j x0_{i-j} + sigma_to sqrt(1 - exp(-2 tau^2 h)) noise
              b_j  = (1 + tau^2) alpha_to integral of exp((1 + tau^2) (lambda - lambda_to)) l_j(lambda)
        eps   x_to = alpha_to / alpha x + sum_j b_j eps_{i-j} + tau sigma_to sqrt(exp(2 h) - 1) noise
              b_j  = -(1 + tau^2) sigma_to integral of exp(lambda_to - lambda) l_j(lambda)

    l_j are the Lagrange polynomials over the last `predictor` values of lambda; a step of x0 of order 2 weighs the
    slope by h^2 / 2, as published code does. The corrector takes the step again, with the same noise, over the
    network's answer at its end and `corrector` - 1 earlier ones. With tau 0 the order is max(predictor, corrector),
    otherwise the weak order is 2 at most.

    Args:
        predictor: order of each step, 1 or more, lowered where the history is shorter.
        corrector: order of the correction of each step.
        tau: how much noise each step draws; 0 is the ODE, 1 the reverse SDE.
        noise_prediction: solve for eps in place of x0.
        clipped: take eps anew from the clipped x0.
    """
    most = max(*predictor, *(order - 1 for order in corrector))
    memory = slots("x", *(f"m{j}" for j in range(1, most + 1)))

    def drift(i: int, grid: Grid, ms: Sequence[Any], order: int, end: Any = None) -> Any:
        """The sum over j for the step of row i, whose newest m is ms[0]; `end` is m at its end, to correct it."""
        lambda_to, gain = log_snr(grid.alpha_to[i], grid.sigma_to[i]), 1 + tau[i] ** 2
        known = past(i, grid, order if end is None else order - 1)
        h, nodes = lambda_to - known[0], known
        if end is not None and h:
            nodes, ms = np.append(lambda_to, known[: order - 1]), [end, *ms]
        if noise_prediction:
            weights = -gain * grid.sigma_to[i] * lagrange_weights(nodes, known[0], lambda_to, -1.0)
        else:
            weights = gain * grid.alpha_to[i] * lagrange_weights(nodes, known[0], lambda_to, gain)
            if len(nodes) == 2:
                slope = gain * grid.alpha_to[i] * h**2 / 2 / (nodes[0] - nodes[1])
                departs = int(end is not None)  # the node that the step departs from
                weights = np.array([slope, -slope]) + weights.sum() * (np.arange(2) == departs)
        return sum(w * m for w, m in zip(weights, ms, strict=False))

    def step(i: int, grid: Grid, state: Any, x0: Any, eps: Any, noise: Any) -> Any:
        m, before = model(i, grid, state.x, x0, eps, noise_prediction, clipped), state[1:]
        x = state.x
        if i:
            x = x + drift(i - 1, grid, before, corrector[i - 1], m) - drift(i - 1, grid, before, predictor[i - 1])
        alpha, sigma, alpha_to, sigma_to = grid.alpha[i], grid.sigma[i], grid.alpha_to[i], grid.sigma_to[i]
        h = log_snr(alpha_to, sigma_to) - log_snr(alpha, sigma)
        if noise_prediction:
            carry, std = alpha_to / alpha, tau[i] * sigma_to * np.sqrt(np.expm1(2 * h))
        else:
            carry = sigma_to / sigma * np.exp(-(tau[i] ** 2) * h)
            std = sigma_to * np.sqrt(-np.expm1(-2 * tau[i] ** 2 * h))
        ms = (m, *before[:-1])
        return memory(carry * x + drift(i, grid, ms, predictor[i]) + std * noise, *ms)

    return Solver(step, memory, keeps_level=not (noise_prediction and any(tau)))
