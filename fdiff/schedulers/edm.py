"""What the EDM schedulers share: x = x0 + sigma eps, levels laid out from sigma_max to sigma_min, preconditioning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import spacing
from fdiff.plan import Grid, Plan, Solver, edm, tabulate
from fdiff.schedulers.exploding import Steps, cut, final_sigma, given_sigmas
from fdiff.schedulers.options import one_of
from fdiff.schedulers.preserving import lowered


def lay_edm(
    scheduler: Any,
    num_inference_steps: int | None,
    sigmas: Sequence[float] | None,
    strength: float,
    c_noise: Callable[[np.ndarray], np.ndarray],
) -> Steps:
    """The steps of a run: sigma_schedule from sigma_max to sigma_min and then the final level, or the user's own.

    c_noise is what the network is told of sigma. Given sigmas fall and end with the level to reach. A single step
    goes down from sigma_max; in diffusers that of the exponential schedule begins at sigma_min, and EDMEuler's with
    final_sigmas_type sigma_min stays where it is.
    Raises ValueError for another sigma_schedule, or sigmas that do not fall.
    """
    if one_of(num_inference_steps=num_inference_steps, sigmas=sigmas) == "sigmas":
        levels = given_sigmas(sigmas)
    else:
        n = spacing.check_steps(num_inference_steps)
        low, high = scheduler.sigma_min, scheduler.sigma_max
        if scheduler.sigma_schedule not in ("karras", "exponential"):
            raise ValueError(f"sigma_schedule is {scheduler.sigma_schedule!r}; it can be karras or exponential")
        karras = scheduler.sigma_schedule == "karras"
        levels = spacing.karras(low, high, n, scheduler.rho) if karras else spacing.exponential(low, high, n)
        levels = np.append(levels, final_sigma(scheduler, low))
    return cut(Steps(c_noise(levels[:-1]), levels[:-1], levels[1:]), strength)


def edm_orders(scheduler: Any, whole: int, steps: Steps) -> list[int]:
    """The order of each of these steps, the last of a run of `whole`: 1 where a step ends at 0 or where it began."""
    stays = not steps.sigma_to[-1] or bool(np.isclose(steps.sigma_to[-1], steps.sigma[-1], rtol=1e-9))
    orders = lowered(scheduler.solver_order, whole, scheduler.lower_order_final, scheduler.euler_at_final or stays)
    return orders[-len(steps.t):]


def tabulate_edm(scheduler: Any, solver: Solver, steps: Steps, clip: tuple[float, float] = (np.inf, 0.0)) -> Plan:
    """The table over these rows, for a network that sees x / sqrt(sigma^2 + sigma_data^2).

    A run starts from noise of deviation sqrt(1 + sigma^2).
    """
    one = np.ones_like(steps.sigma)
    return tabulate(
        solver, Grid(steps.t, one, steps.sigma, one, steps.sigma_to),
        edm(scheduler.sigma_data, scheduler.prediction_type),
        c_in=1 / np.hypot(steps.sigma, scheduler.sigma_data), start_std=np.hypot(1, steps.sigma), clip=clip,
    )


def log_sigma(sigma: np.ndarray) -> np.ndarray:
    """What an EDM network is told of sigma: log(sigma) / 4."""
    return np.log(sigma) / 4


def log_sigma_levels(t: Any) -> tuple[jax.Array, jax.Array]:
    """(1, sigma) where the network is told t = log(sigma) / 4."""
    sigma = jnp.exp(4 * jnp.asarray(t, jnp.float32))
    return jnp.ones_like(sigma), sigma


def edm_target(scheduler: Any, x0: jax.Array, noise: jax.Array, sigma: jax.Array) -> jax.Array:
    """What the network should say of x = x0 + sigma noise: (x0 - c_skip x) / c_out. sigma broadcasts to x0."""
    data = scheduler.sigma_data
    sign = 1.0 if scheduler.prediction_type == "epsilon" else -1.0
    return sign * (sigma * x0 - data**2 * noise) / (data * jnp.hypot(sigma, data))
