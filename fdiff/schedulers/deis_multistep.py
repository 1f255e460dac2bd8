"""DEISMultistepScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from fdiff import solvers
from fdiff.plan import Plan
from fdiff.schedulers.options import choose, first_step
from fdiff.schedulers.preserving import grid_of, lay_levels, log_snr_levels, lowered, tabulate_preserving
from fdiff.schedulers.scheduler import Scheduler


@dataclasses.dataclass(frozen=True, kw_only=True)
class DEISMultistepScheduler(Scheduler):
    """log-rho DEIS (Zhang & Chen 2023, eq. 14 and 15), order 1 to 3, deterministic, one network call a step.

    The fields are the Hub's. A run ends at the least noise of training; where sigmas are laid out by an option
    its last step stays at their last, and changes nothing.
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
    algorithm_type: str = "deis"
    solver_type: str = "logrho"
    lower_order_final: bool = True
    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    use_beta_sigmas: bool = False
    use_flow_sigmas: bool = False
    flow_shift: float = 1.0
    timestep_spacing: str = "linspace"
    steps_offset: int = 0
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
        choose("algorithm_type", self.algorithm_type, ("deis", "dpmsolver", "dpmsolver++"))
        choose("solver_type", self.solver_type, ("logrho", "midpoint", "heun", "bh1", "bh2"))
        if self.solver_order not in (1, 2, 3):
            raise ValueError(f"solver_order is {self.solver_order}; it can be 1, 2 or 3")
        steps = lay_levels(self, num_inference_steps, timesteps, mu, repeat_last=True)
        start = first_step(len(steps.t), strength)
        orders = lowered(self.solver_order, len(steps.t), self.lower_order_final, False)[start:]
        # as in diffusers eps is always read from x0; that is another one where x0 is, by clipping or along a flow
        from_x0 = self.thresholding or (self.use_flow_sigmas and self.prediction_type == "v_prediction")
        solver = solvers.deis(orders, clipped=from_x0)
        return tabulate_preserving(self, solver, grid_of(self, steps).rows(start))

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(alpha, sigma) at training timesteps t."""
        return log_snr_levels(self, t)
