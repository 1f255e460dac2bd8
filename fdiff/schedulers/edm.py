"""What the EDM schedulers share: x = x0 + sigma eps, levels laid out from sigma_max to sigma_min, preconditioning."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import spacing
from fdiff.plan import Grid, Pair, Plan, Solver, edm
from fdiff.schedulers.exploding import Steps, cut, final_sigma, given_sigmas
from fdiff.schedulers.fields import Positive, PredictionType, TrainTimesteps
from fdiff.schedulers.level import hypot
from fdiff.schedulers.options import one_of
from fdiff.schedulers.preserving import lowered
from fdiff.schedulers.scheduler import Scheduler


@dataclasses.dataclass(frozen=True, kw_only=True)
class EDMScheduler(Scheduler):
    """A scheduler in x = x0 + sigma eps of an EDM network; no Hub class, but what those of this kind inherit."""

    sigma_min: Positive = 0.002
    sigma_max: Positive = 80.0
    sigma_data: Positive = 0.5
    sigma_schedule: str = "karras"
    num_train_timesteps: TrainTimesteps = 1000
    prediction_type: PredictionType = "epsilon"
    rho: Positive = 7.0
    final_sigmas_type: str = "zero"

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(1, sigma) where the network is told t = log(sigma) / 4: x = x0 + sigma eps."""
        sigma = jnp.exp(4 * jnp.asarray(t, jnp.float32))
        return jnp.ones_like(sigma), sigma

    def times(self, share: jax.Array) -> jax.Array:
        """Times at these shares, as the network is told them, of sigmas laid out evenly as those of a long run."""
        low, high = self.sigma_min, self.sigma_max
        if self.sigma_schedule == "karras":
            low, high = low ** (1 / self.rho), high ** (1 / self.rho)
            return self._c_noise((low + share * (high - low)) ** self.rho)
        return self._c_noise(low * (high / low) ** share)

    def velocity(self, x0: jax.Array, noise: jax.Array, t: Any) -> jax.Array:
        """The target of the network, (x0 - c_skip x) / c_out (Karras et al. 2022, eq. 8)."""
        return self.level(t).target(x0, noise)

    def _c_noise(self, sigma: Any) -> Any:
        """What the network is told of sigma, with NumPy or JAX."""
        return (jnp if isinstance(sigma, jax.Array) else np).log(sigma) / 4

    def _reads(self, alpha: Any, sigma: Any) -> tuple[Pair, Pair]:
        return edm(self.sigma_data, self.prediction_type)(alpha, sigma)

    def _c_in(self, alpha: Any, sigma: Any) -> Any:
        return 1 / hypot(sigma, self.sigma_data)

    def _rows(self, solver: Solver, steps: Steps, clip: tuple[float, float] = (np.inf, 0.0)) -> Plan:
        """The table over these rows; a run starts from noise of deviation sqrt(1 + sigma^2)."""
        one = np.ones_like(steps.sigma)
        grid = Grid(steps.t, one, steps.sigma, one, steps.sigma_to)
        return self._tabulate(solver, grid, start_std=np.hypot(1, steps.sigma), clip=clip)


def lay_edm(
    scheduler: EDMScheduler, num_inference_steps: int | None, sigmas: Sequence[float] | None, strength: float
) -> Steps:
    """The steps of a run: sigma_schedule from sigma_max to sigma_min and then the final level, or the user's own.

    Given sigmas fall and end with the level to reach. A single step
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
    return cut(Steps(scheduler._c_noise(levels[:-1]), levels[:-1], levels[1:]), strength)


def edm_orders(scheduler: Any, whole: int, steps: Steps) -> list[int]:
    """The order of each of these steps, the last of a run of `whole`: 1 where a step ends at 0 or where it began."""
    stays = not steps.sigma_to[-1] or bool(np.isclose(steps.sigma_to[-1], steps.sigma[-1], rtol=1e-9))
    orders = lowered(scheduler.solver_order, whole, scheduler.lower_order_final, scheduler.euler_at_final or stays)
    return orders[-len(steps.t):]
