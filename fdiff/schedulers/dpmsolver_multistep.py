"""DPMSolverMultistepScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from fdiff import solvers
from fdiff.plan import Solver
from fdiff.schedulers.exploding import Steps
from fdiff.schedulers.fields import DynamicShift, LogSnrEnds, SolverOrder, Spacing
from fdiff.schedulers.options import choose
from fdiff.schedulers.preserving import ShiftedLogSnrScheduler, lay_levels, lowered

ALGORITHMS = ("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPMSolverMultistepScheduler(SolverOrder, LogSnrEnds, Spacing, DynamicShift, ShiftedLogSnrScheduler):
    """DPM-Solver(++) multistep (Lu et al. 2022a, 2022b algorithm 2), order 1 to 3, one network call a step.

    The fields are the Hub's. algorithm_type: dpmsolver++ solves for x0, dpmsolver for eps, and their sde- kinds
    the reverse SDE (stochastic). Measured, solver_order 3 has order 2, since published code halves the second
    difference of the predictions, and with sde-dpmsolver++ it has weak order 1, since diffusers weighs that by
    alpha_to too little; `solvers.dpm_multistep` by itself has order 3. sde-dpmsolver has no solver_order 3. Two
    steps at one level, NaN in diffusers, have order 1. variance_type says that the network also predicts a
    variance, which these solvers leave aside.
    """

    algorithm_type: str = "dpmsolver++"
    euler_at_final: bool = False
    use_lu_lambdas: bool = False
    final_sigmas_type: str = "zero"
    rescale_betas_zero_snr: bool = False

    def _steps(self, n: int | None, timesteps: Sequence[float] | None, mu: float | None) -> Steps:
        return lay_levels(self, n, timesteps, mu, whole=self.beta_schedule != "squaredcos_cap_v2")

    def _solver(self, n: int, start: int) -> Solver:
        euler_last = self.euler_at_final or self.final_sigmas_type == "zero"
        return multistep_solver(self, lowered(self.solver_order, n, self.lower_order_final, euler_last)[start:])


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
