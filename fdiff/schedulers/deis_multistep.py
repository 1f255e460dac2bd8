"""DEISMultistepScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from fdiff import solvers
from fdiff.plan import Solver
from fdiff.schedulers.exploding import Steps
from fdiff.schedulers.fields import DynamicShift, SolverOrder, Spacing
from fdiff.schedulers.options import choose
from fdiff.schedulers.preserving import ShiftedLogSnrScheduler, lay_levels, lowered


@dataclasses.dataclass(frozen=True, kw_only=True)
class DEISMultistepScheduler(SolverOrder, Spacing, DynamicShift, ShiftedLogSnrScheduler):
    """log-rho DEIS (Zhang & Chen 2023, eq. 14 and 15), order 1 to 3, deterministic, one network call a step.

    The fields are the Hub's. A run ends at the least noise of training; where sigmas are laid out by an option
    its last step stays at their last, and changes nothing.
    """

    algorithm_type: str = "deis"
    solver_type: str = "logrho"

    def _steps(self, n: int | None, timesteps: Sequence[float] | None, mu: float | None) -> Steps:
        return lay_levels(self, n, timesteps, mu, repeat_last=True)

    def _solver(self, n: int, start: int) -> Solver:
        choose("algorithm_type", self.algorithm_type, ("deis", "dpmsolver", "dpmsolver++"))
        choose("solver_type", self.solver_type, ("logrho", "midpoint", "heun", "bh1", "bh2"))
        if self.solver_order not in (1, 2, 3):
            raise ValueError(f"solver_order is {self.solver_order}; it can be 1, 2 or 3")
        orders = lowered(self.solver_order, n, self.lower_order_final, False)[start:]
        # as in diffusers eps is always read from x0; that is another one where x0 is, by clipping or along a flow
        from_x0 = self.thresholding or (self.use_flow_sigmas and self.prediction_type == "v_prediction")
        return solvers.deis(orders, clipped=from_x0)
