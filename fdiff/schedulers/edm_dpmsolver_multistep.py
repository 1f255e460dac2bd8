"""EDMDPMSolverMultistepScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from fdiff import solvers
from fdiff.plan import Plan
from fdiff.schedulers.edm import edm_orders, edm_target, lay_edm, log_sigma, log_sigma_levels, tabulate_edm
from fdiff.schedulers.options import choose, clipping, length
from fdiff.schedulers.scheduler import Scheduler, broadcast


@dataclasses.dataclass(frozen=True, kw_only=True)
class EDMDPMSolverMultistepScheduler(Scheduler):
    """DPM-Solver++ multistep (Lu et al. 2022b, algorithm 2) for EDM's preconditioned networks.

    Order solver_order, 1 to 3 (but see DPMSolverMultistepScheduler about 3), one network call a step; stochastic with
    algorithm_type sde-dpmsolver++. The fields are the Hub's. The network is told log(sigma) / 4. With solver_type
    heun and final_sigmas_type sigma_min the last step of diffusers is not a number; here it changes nothing, as it
    starts where it ends.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    sigma_data: float = 0.5
    sigma_schedule: str = "karras"
    num_train_timesteps: int = 1000
    prediction_type: str = "epsilon"
    rho: float = 7.0
    solver_order: int = 2
    thresholding: bool = False
    dynamic_thresholding_ratio: float = 0.995
    sample_max_value: float = 1.0
    algorithm_type: str = "dpmsolver++"
    solver_type: str = "midpoint"
    lower_order_final: bool = True
    euler_at_final: bool = False
    final_sigmas_type: str = "zero"

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
            strength: below 1, only that last part of the run (image to image), with a warm-up of its own.
        """
        algorithm = choose("algorithm_type", self.algorithm_type, ("dpmsolver++", "sde-dpmsolver++"), ("deis",))
        kind = choose("solver_type", self.solver_type, ("midpoint", "heun"), ("logrho", "bh1", "bh2"))
        if self.solver_order not in (1, 2, 3):
            raise ValueError(f"solver_order is {self.solver_order}; it can be 1, 2 or 3")
        steps = lay_edm(self, num_inference_steps, sigmas, strength, log_sigma)
        orders = edm_orders(self, num_inference_steps or length(sigmas) - 1, steps)
        solver = solvers.dpm_multistep(
            orders, stochastic=algorithm == "sde-dpmsolver++", heun=kind == "heun",
            as_diffusers=algorithm == "dpmsolver++",
        )
        return tabulate_edm(self, solver, steps, clipping(self))

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(1, sigma) where the network is told t = log(sigma) / 4: x = x0 + sigma eps."""
        return log_sigma_levels(t)

    def velocity(self, x0: jax.Array, noise: jax.Array, t: Any) -> jax.Array:
        """The target of the network, (x0 - c_skip x) / c_out (Karras et al. 2022, eq. 8)."""
        return edm_target(self, x0, noise, broadcast(self.levels(t)[1], x0))
