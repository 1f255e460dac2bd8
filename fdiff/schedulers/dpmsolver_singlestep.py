"""DPMSolverSinglestepScheduler."""

from __future__ import annotations

import dataclasses

from fdiff import solvers
from fdiff.plan import Solver
from fdiff.schedulers.fields import DynamicShift, LogSnrEnds, SolverOrder
from fdiff.schedulers.options import choose
from fdiff.schedulers.preserving import ShiftedLogSnrScheduler


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPMSolverSinglestepScheduler(SolverOrder, LogSnrEnds, DynamicShift, ShiftedLogSnrScheduler):
    """DPM-Solver(++) singlestep (Lu et al. 2022a, algorithms 1 and 2; 2022b, algorithm 1), order 1 to 3.

    One network call a row, solver_order rows a step of that order, counted as one step each on the Hub;
    stochastic, and of weak order 1, with sde-dpmsolver++. The fields are the Hub's. The end of a run has lower
    orders where lower_order_final is set, the steps are no multiple of solver_order, or final_sigmas_type is zero.
    variance_type says that the network also predicts a variance, which these solvers leave aside.
    """

    algorithm_type: str = "dpmsolver++"
    lower_order_final: bool = False
    final_sigmas_type: str = "zero"

    def _solver(self, n: int, start: int) -> Solver:
        algorithms = ("dpmsolver++", "dpmsolver", "sde-dpmsolver++")
        algorithm = choose("algorithm_type", self.algorithm_type, algorithms, ("deis",))
        kind = choose("solver_type", self.solver_type, ("midpoint", "heun"), ("logrho", "bh1", "bh2"))
        clean = self.final_sigmas_type == "zero"
        if self.solver_order not in (1, 2, 3):
            raise ValueError(f"solver_order is {self.solver_order}; it can be 1, 2 or 3")
        if algorithm == "dpmsolver" and clean:
            raise ValueError("final_sigmas_type zero contradicts algorithm_type dpmsolver, which divides by it; "
                             "set final_sigmas_type to sigma_min")
        stages = stages_of(self.solver_order, n, self.lower_order_final, clean)
        return solvers.dpm_singlestep(
            stages[start:], noise_prediction=algorithm == "dpmsolver", stochastic=algorithm.startswith("sde"),
            heun=kind == "heun", clipped=self.thresholding, as_diffusers=True,
        )


def stages_of(order: int, n: int, lower_order_final: bool, clean: bool) -> list[int]:
    """The order of each of n rows: 1 to `order` again and again, lower at the end where the last must be 1."""
    stages = list(range(1, order + 1)) * (n // order + 1)
    if lower_order_final or n % order or clean:
        whole = (n - 1) // order * order  # the rows before the last group, which has one row at least
        stages = stages[:whole] + {3: [1, 2, 1], 2: [1, 1], 1: [1]}[order][: n - whole]
    if clean:
        stages[n - 1] = 1
    return stages[:n]
