"""EDMEulerScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from fdiff import solvers
from fdiff.plan import Plan, edm
from fdiff.schedulers.edm import edm_target, lay_edm, log_sigma, log_sigma_levels, tabulate_edm
from fdiff.schedulers.options import length
from fdiff.schedulers.scheduler import Scheduler, broadcast


@dataclasses.dataclass(frozen=True, kw_only=True)
class EDMEulerScheduler(Scheduler):
    """Euler's method for EDM's preconditioned networks (Karras et al. 2022, algorithm 2 and table 1).

    Order 1, one network call a step; stochastic with s_churn. The fields are the Hub's; num_train_timesteps is how
    many steps `step` by hand takes when it is not told. The network is told log(sigma) / 4.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    sigma_data: float = 0.5
    sigma_schedule: str = "karras"
    num_train_timesteps: int = 1000
    prediction_type: str = "epsilon"
    rho: float = 7.0
    final_sigmas_type: str = "zero"

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        sigmas: Sequence[float] | None = None,
        strength: float = 1.0,
        s_churn: float = 0.0,
        s_tmin: float = 0.0,
        s_tmax: float = np.inf,
        s_noise: float = 1.0,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps.
            sigmas: the noise levels themselves, falling, with the one to reach at the end. (diffusers takes its
                sigmas for positions on the schedule, from 0 to 1.)
            strength: below 1, only that last part of the run (image to image).
            s_churn: noise added over the whole run, as a multiple of the level; 0 for none.
            s_tmin, s_tmax: the noise levels between which it is added.
            s_noise: its deviation.
        """
        steps = lay_edm(self, num_inference_steps, sigmas, strength, log_sigma)
        predict = edm(self.sigma_data, self.prediction_type)
        gamma = min(s_churn / (num_inference_steps or length(sigmas) - 1), np.sqrt(2) - 1)
        solver = solvers.euler(gamma, s_tmin, s_tmax, s_noise, x0_of=lambda sigma, hat: predict(1.0, hat)[0])
        return tabulate_edm(self, solver, steps)

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(1, sigma) where the network is told t = log(sigma) / 4: x = x0 + sigma eps."""
        return log_sigma_levels(t)

    def velocity(self, x0: jax.Array, noise: jax.Array, t: Any) -> jax.Array:
        """The target of the network, (x0 - c_skip x) / c_out (Karras et al. 2022, eq. 8)."""
        return edm_target(self, x0, noise, broadcast(self.levels(t)[1], x0))
