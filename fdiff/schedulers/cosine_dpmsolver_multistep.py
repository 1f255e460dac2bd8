"""CosineDPMSolverMultistepScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import solvers
from fdiff.plan import Plan
from fdiff.schedulers.edm import EDMScheduler, edm_orders, lay_edm
from fdiff.schedulers.fields import Positive, PredictionType, SolverOrder
from fdiff.schedulers.options import choose, length


@dataclasses.dataclass(frozen=True, kw_only=True)
class CosineDPMSolverMultistepScheduler(SolverOrder, EDMScheduler):
    """SDE-DPM-Solver++ multistep (Lu et al. 2022b, section 5) for Stable Audio's preconditioned networks.

    Order 1 or 2 (solver_order), one network call a step; stochastic. The fields are the Hub's. The network is told
    2 / pi arctan(sigma). The noise of a step is an increment of a Brownian path in sigma; as the steps do not
    overlap, these are independent, and no torchsde is needed. diffusers accepts solver_order 3 and then fails.
    """

    sigma_min: Positive = 0.3
    sigma_max: Positive = 500.0
    sigma_data: Positive = 1.0
    sigma_schedule: str = "exponential"
    prediction_type: PredictionType = "v_prediction"
    euler_at_final: bool = False

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        sigmas: Sequence[float] | None = None,
        strength: float = 1.0,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps.
            sigmas: the noise levels themselves, falling, with the one to reach at the end.
            strength: below 1, only that last part of the run (sound to sound), with a warm-up of its own.
        """
        kind = choose("solver_type", self.solver_type, ("midpoint", "heun"), ("logrho", "bh1", "bh2"))
        if self.solver_order not in (1, 2):
            raise ValueError(f"solver_order is {self.solver_order}; it can be 1 or 2")
        steps = lay_edm(self, num_inference_steps, sigmas, strength)
        orders = edm_orders(self, num_inference_steps or length(sigmas) - 1, steps)
        solver = solvers.dpm_multistep(orders, stochastic=True, heun=kind == "heun")
        return self._rows(solver, steps)

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(1, sigma) where the network is told t = 2 / pi arctan(sigma): x = x0 + sigma eps."""
        sigma = jnp.tan(jnp.asarray(t, jnp.float32) * np.pi / 2)
        return jnp.ones_like(sigma), sigma

    def _c_noise(self, sigma: Any) -> Any:
        return (jnp if isinstance(sigma, jax.Array) else np).arctan(sigma) * 2 / np.pi
