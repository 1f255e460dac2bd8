"""DPMSolverSinglestepScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from fdiff import solvers
from fdiff.plan import Plan
from fdiff.schedulers.options import choose, first_step
from fdiff.schedulers.preserving import grid_of, lay_levels, log_snr_levels, tabulate_preserving
from fdiff.schedulers.scheduler import Scheduler


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPMSolverSinglestepScheduler(Scheduler):
    """DPM-Solver(++) singlestep (Lu et al. 2022a, algorithms 1 and 2; 2022b, algorithm 1), order 1 to 3.

    One network call a row, solver_order rows a step of that order, counted as one step each on the Hub;
    stochastic, and of weak order 1, with sde-dpmsolver++. The fields are the Hub's. The end of a run has lower
    orders where lower_order_final is set, the steps are no multiple of solver_order, or final_sigmas_type is zero.
    variance_type says that the network also predicts a variance, which these solvers leave aside.
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
    lower_order_final: bool = False
    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    use_beta_sigmas: bool = False
    use_flow_sigmas: bool = False
    flow_shift: float = 1.0
    final_sigmas_type: str = "zero"
    lambda_min_clipped: float = -np.inf
    variance_type: str | None = None
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
            num_inference_steps: how many network calls.
            timesteps: the timesteps themselves, falling, in place of their number.
            mu: the resolution's shift of flow sigmas, where use_dynamic_shifting is on.
            strength: below 1, only that last part of the run (image to image).
        """
        algorithms = ("dpmsolver++", "dpmsolver", "sde-dpmsolver++")
        algorithm = choose("algorithm_type", self.algorithm_type, algorithms, ("deis",))
        kind = choose("solver_type", self.solver_type, ("midpoint", "heun"), ("logrho", "bh1", "bh2"))
        clean = self.final_sigmas_type == "zero"
        if self.solver_order not in (1, 2, 3):
            raise ValueError(f"solver_order is {self.solver_order}; it can be 1, 2 or 3")
        if algorithm == "dpmsolver" and clean:
            raise ValueError("final_sigmas_type zero contradicts algorithm_type dpmsolver, which divides by it; "
                             "set final_sigmas_type to sigma_min")
        steps = lay_levels(self, num_inference_steps, timesteps, mu)
        stages = stages_of(self.solver_order, len(steps.t), self.lower_order_final, clean)
        start = first_step(len(steps.t), strength)
        solver = solvers.dpm_singlestep(
            stages[start:], noise_prediction=algorithm == "dpmsolver", stochastic=algorithm.startswith("sde"),
            heun=kind == "heun", clipped=self.thresholding, as_diffusers=True,
        )
        return tabulate_preserving(self, solver, grid_of(self, steps).rows(start))

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(alpha, sigma) at training timesteps t."""
        return log_snr_levels(self, t)


def stages_of(order: int, n: int, lower_order_final: bool, clean: bool) -> list[int]:
    """The order of each of n rows: 1 to `order` again and again, lower at the end where the last must be 1."""
    stages = list(range(1, order + 1)) * (n // order + 1)
    if lower_order_final or n % order or clean:
        whole = (n - 1) // order * order  # the rows before the last group, which has one row at least
        stages = stages[:whole] + {3: [1, 2, 1], 2: [1, 1], 1: [1]}[order][: n - whole]
    if clean:
        stages[n - 1] = 1
    return stages[:n]
