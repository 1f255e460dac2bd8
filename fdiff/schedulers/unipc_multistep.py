"""UniPCMultistepScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from fdiff import solvers, spacing
from fdiff.plan import Plan, Solver
from fdiff.schedulers.exploding import Steps, final_sigma
from fdiff.schedulers.fields import Bounds, DynamicShift, Instead, Offset, Positive, SolverOrder, Spacing
from fdiff.schedulers.flow import given_levels
from fdiff.schedulers.options import choose, first_step, one_of, require
from fdiff.schedulers.preserving import LogSnrScheduler, lay_levels, layout

OWN_PREDICTOR = "use the predictor that UniPC has, since another is not supported"


@dataclasses.dataclass(frozen=True, kw_only=True)
class UniPCMultistepScheduler(SolverOrder, Spacing, DynamicShift, LogSnrScheduler):
    """UniPC (Zhao et al. 2023, algorithms 1 and 2), deterministic, one network call a step.

    Its order is solver_order + 1, any; that of steps in disable_corrector is solver_order. The fields are the
    Hub's. With solver_type bh1 the last step to sigma 0, and any step to it of a higher order, are NaN in
    diffusers; here that step has order 1, its limit. predict_x0 false solves for eps, and ends at sigma 0 as well.
    """

    predict_x0: bool = True
    solver_type: str = "bh2"
    disable_corrector: tuple[Offset, ...] = ()
    solver_p: Annotated[None, Instead(OWN_PREDICTOR)] = None
    final_sigmas_type: str = "zero"
    rescale_betas_zero_snr: bool = False
    sigma_min: Positive | None = None
    sigma_max: Positive | None = None
    shift_terminal: Annotated[float, Bounds(0, 1, open_high=True)] | None = None

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
        strength: float = 1.0,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps.
            timesteps: the timesteps themselves, falling, in place of their number.
            sigmas: the flow's sigmas before their shift, falling, in place of their number; the last level
                follows them.
            mu: the resolution's shift of flow sigmas, where use_dynamic_shifting is on.
            strength: below 1, only that last part of the run (image to image), with a warm-up of its own.
        """
        steps = self._steps(num_inference_steps, timesteps, sigmas, mu)
        start = first_step(len(steps.t), strength)
        return self._rows(unipc_solver(self, len(steps.t), start), steps, start)

    def _steps(
        self, n: int | None, timesteps: Sequence[float] | None, sigmas: Sequence[float] | None, mu: float | None
    ) -> Steps:
        if not self.use_flow_sigmas:
            if sigmas is not None or self.shift_terminal is not None:
                raise ValueError("sigmas and shift_terminal are for flows; switch use_flow_sigmas on or leave them out")
            return lay_levels(self, n, timesteps, mu, repeat_last=True)
        if timesteps is not None:
            raise ValueError("timesteps contradict use_flow_sigmas; pass sigmas or num_inference_steps")
        if self.use_karras_sigmas:
            if sigmas is not None or mu is not None:
                raise ValueError("sigmas and mu contradict use_karras_sigmas, which lays its own")
            ratio = lay_levels(dataclasses.replace(self, use_flow_sigmas=False), n).sigma
            laid = ratio / (1 + ratio)
        else:
            layout(self)
            laid = self._flow_sigmas(n, sigmas, mu)
        return Steps(np.trunc(laid * self.num_train_timesteps), laid, np.append(laid[1:], final_sigma(self, laid[-1])))

    def _flow_sigmas(self, n: int | None, sigmas: Sequence[float] | None, mu: float | None) -> np.ndarray:
        """The flow's sigmas: even or given, shifted, stretched; the first stays below 1, where alpha is 0."""
        if one_of(num_inference_steps=n, sigmas=sigmas) == "sigmas":
            laid = given_levels("sigmas", sigmas, 1.0)
        else:
            laid = np.linspace(1, 1 / self.num_train_timesteps, spacing.check_steps(n) + 1)[:-1]
        if self.use_dynamic_shifting != (mu is not None):
            raise ValueError("mu goes with use_dynamic_shifting: give both or neither")
        if mu is None:
            laid = spacing.shift_flow(laid, self.flow_shift)
        else:
            laid = spacing.shift_flow_by(laid, mu, self.time_shift_type)
        if self.shift_terminal is not None:
            laid = spacing.stretch_flow(laid, self.shift_terminal)
        return np.append(laid[0] - 1e-6 if abs(laid[0] - 1) < 1e-6 else laid[0], laid[1:])


def unipc_solver(scheduler: Any, n: int, start: int = 0) -> Solver:
    """UniPC for the last rows, from `start`, of a run of n, by the scheduler's options.

    Raises ValueError for a solver_order or solver_type that there is not.
    """
    order = scheduler.solver_order
    require("solver_order", order, order >= 1, "1 or more")
    return solvers.unipc(
        [min(order, n - i) if scheduler.lower_order_final else order for i in range(start, n)],
        noise_prediction=not scheduler.predict_x0,
        bh1=choose("solver_type", scheduler.solver_type, ("bh2", "bh1"), ("midpoint", "heun", "logrho")) == "bh1",
        uncorrected=[i - start for i in scheduler.disable_corrector],
    )
