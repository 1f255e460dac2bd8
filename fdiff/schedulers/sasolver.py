"""SASolverScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np

from fdiff import solvers
from fdiff.plan import Plan
from fdiff.schedulers.fields import Bounds, Instead, LogSnrEnds, Order, Spacing, check
from fdiff.schedulers.options import choose, first_step
from fdiff.schedulers.preserving import LogSnrScheduler, lay_levels

Tau = Annotated[float, Bounds(0, 10, least=1e-9)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SASolverScheduler(LogSnrEnds, Spacing, LogSnrScheduler):
    """SA-Solver (Xue et al. 2023, algorithm 1), stochastic where tau > 0, one network call a step.

    Order corrector_order (weak, and 2 at most, where tau > 0). The fields are the Hub's. A run ends at the least
    noise of training. diffusers sums large exponentials in float32, which loses up to four digits; here they are exact.
    tau_func, which no JSON can hold, is the argument `tau` of plan. variance_type says that the network also
    predicts a variance, which this solver leaves aside.
    """

    predictor_order: Order = 2
    corrector_order: Order = 2
    tau_func: Annotated[None, Instead("pass tau to plan")] = None
    algorithm_type: str = "data_prediction"
    lower_order_final: bool = True

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        tau: Callable[[float], float] | float | None = None,
        strength: float = 1.0,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps.
            timesteps: the timesteps themselves, falling, in place of their number.
            tau: how much noise a step draws, a number or a function of the timestep; 1 from 200 to 800 and 0
                elsewhere if not given.
            strength: below 1, only that last part of the run (image to image), with a warm-up of its own.
        """
        kind = choose("algorithm_type", self.algorithm_type, ("data_prediction", "noise_prediction"))
        for name in ("predictor_order", "corrector_order"):
            if getattr(self, name) not in (1, 2, 3, 4):
                raise ValueError(f"{name} is {getattr(self, name)}; it can be 1 to 4")
        steps = lay_levels(self, num_inference_steps, timesteps, repeat_last=True)
        n, start = len(steps.t), first_step(len(steps.t), strength)
        left = np.arange(n, 0, -1) if self.lower_order_final else np.full(n, n)
        predictor, corrector = np.minimum(self.predictor_order, left), np.minimum(self.corrector_order, left + 1)
        solver = solvers.sa(
            predictor[start:].tolist(), corrector[start:].tolist(), taus(tau, steps.t[start:]),
            noise_prediction=kind == "noise_prediction", clipped=self.thresholding,
        )
        return self._rows(solver, steps, start).drawing()


def taus(tau: Callable[[float], float] | float | None, t: np.ndarray) -> list[float]:
    """tau at each timestep. Raises ValueError where it is none, or no number."""
    if tau is None:
        return [float(200 <= at <= 800) for at in t]
    return [float(check("tau", tau(at) if callable(tau) else tau, Tau)) for at in t]
