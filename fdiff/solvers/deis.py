"""DEIS: Adams-Bashforth in log rho, with rho = sigma / alpha."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fdiff.plan import Grid, Solver
from fdiff.solvers.dpm_multistep import model
from fdiff.solvers.exponential import lagrange_weights, log_snr, past
from fdiff.solvers.lms import slots


def deis(order: int | Sequence[int] = 2, *, clipped: bool = False) -> Solver:
    """log-rho DEIS (Zhang & Chen 2023, eq. 14 and 15). Order `order`, one network call a step.

        x_to = alpha_to / alpha x + alpha_to sum_j c_j eps_{i-j}
        c_j  = integral over rho, from sigma / alpha to sigma_to / alpha_to, of the j-th Lagrange polynomial in log rho

    The first steps have the order that their history allows.

    Args:
        order: of all steps, or of each.
        clipped: take eps anew from the clipped x0.
    """
    most = order if isinstance(order, int) else max(order)
    memory = slots("x", *(f"e{j}" for j in range(1, most)))

    def step(i: int, grid: Grid, state: Any, x0: Any, eps: Any, noise: Any) -> Any:
        slopes = (model(i, grid, state.x, x0, eps, True, clipped), *state[1:])
        known = past(i, grid, order if isinstance(order, int) else order[i])
        # log rho is -lambda, and d rho = -exp(-lambda) d lambda
        lambda_to = log_snr(grid.alpha_to[i], grid.sigma_to[i])
        weights = -grid.sigma_to[i] * lagrange_weights(known, known[0], lambda_to, -1.0)
        x = grid.alpha_to[i] / grid.alpha[i] * state.x
        return memory(x + sum(w * e for w, e in zip(weights, slopes, strict=False)), *slopes[: most - 1])

    return Solver(step, memory)
