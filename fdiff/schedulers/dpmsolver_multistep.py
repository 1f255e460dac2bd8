"""DPMSolverMultistepScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from fdiff import solvers
from fdiff.plan import Plan, Solver
from fdiff.schedulers.options import choose, first_step
from fdiff.schedulers.preserving import grid_of, lay_levels, log_snr_levels, lowered, tabulate_preserving
from fdiff.schedulers.scheduler import Scheduler

ALGORITHMS = ("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPMSolverMultistepScheduler(Scheduler):
    """DPM-Solver(++) multistep (Lu et al. 2022a, 2022b algorithm 2), order 1 to 3, one network call a step.

    The fields are the Hub's. algorithm_type: dpmsolver++ solves for x0, dpmsolver for eps, and their sde- kinds
    the reverse SDE (stochastic). Measured, solver_order 3 has order 2, since published code halves the second
    difference of the predictions, and with sde-dpmsolver++ it has weak order 1, since diffusers weighs that by
    alpha_to too little; `solvers.dpm_multistep` by itself has order 3. sde-dpmsolver has no solver_order 3. Two
    steps at one level, NaN in diffusers, have order 1. variance_type says that the network also predicts a
    variance, which these solvers leave aside.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: tuple[float, ...] | None = None
    solver_order: int = 2
    prediction_type: str = "epsilon"
    thresholding: bool = False
    dynamic_thresholding_ratio: float = 0.995
    sample_max_value: float = 1.0
    algorithm_type: str = "dpmsolver++"
    solver_type: str = "midpoint"
    lower_order_final: bool = True
    euler_at_final: bool = False
    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    use_beta_sigmas: bool = False
    use_lu_lambdas: bool = False
    use_flow_sigmas: bool = False
    flow_shift: float = 1.0
    final_sigmas_type: str = "zero"
    lambda_min_clipped: float = -np.inf
    variance_type: str | None = None
    timestep_spacing: str = "linspace"
    steps_offset: int = 0
    rescale_betas_zero_snr: bool = False
    use_dynamic_shifting: bool = False
    time_shift_type: str = "exponential"

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        mu: float | None = None,
        strength: float = 1.0,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps.
            timesteps: the timesteps themselves, falling, in place of their number.
            mu: the resolution's shift of flow sigmas, where use_dynamic_shifting is on.
            strength: below 1, only that last part of the run (image to image), with a warm-up of its own.
        """
        whole = self.beta_schedule != "squaredcos_cap_v2"
        steps = lay_levels(self, num_inference_steps, timesteps, mu, whole=whole)
        n, euler_last = len(steps.t), self.euler_at_final or self.final_sigmas_type == "zero"
        orders, start = lowered(self.solver_order, n, self.lower_order_final, euler_last), first_step(n, strength)
        grid, solver = grid_of(self, steps).rows(start), multistep_solver(self, orders[start:])
        return tabulate_preserving(self, solver, grid)

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(alpha, sigma) at training timesteps t."""
        return log_snr_levels(self, t)


def multistep_solver(scheduler: Any, orders: Sequence[int]) -> Solver:
    """DPM-Solver as algorithm_type, solver_type and solver_order ask for it. Raises ValueError if there is none."""
    algorithm = choose("algorithm_type", scheduler.algorithm_type, ALGORITHMS, ("deis",))
    kind = choose("solver_type", scheduler.solver_type, ("midpoint", "heun"), ("logrho", "bh1", "bh2"))
    noise_prediction, order = not algorithm.endswith("++"), scheduler.solver_order
    if order not in (1, 2, 3) or (order == 3 and algorithm == "sde-dpmsolver"):
        raise ValueError(f"solver_order is {order}; {algorithm} has 1, 2 and, if not sde-dpmsolver, 3")
    if noise_prediction and getattr(scheduler, "final_sigmas_type", "sigma_min") == "zero":
        raise ValueError(f"final_sigmas_type zero contradicts algorithm_type {algorithm}, which divides by it; "
                         "set final_sigmas_type to sigma_min")
    return solvers.dpm_multistep(
        orders, noise_prediction=noise_prediction, stochastic=algorithm.startswith("sde"), heun=kind == "heun",
        clipped=scheduler.thresholding, as_diffusers=True,
    )
