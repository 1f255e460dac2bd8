"""SASolverScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from fdiff import solvers
from fdiff.plan import Plan
from fdiff.schedulers.options import choose, first_step
from fdiff.schedulers.preserving import grid_of, lay_levels, log_snr_levels, tabulate_preserving
from fdiff.schedulers.scheduler import Scheduler


@dataclasses.dataclass(frozen=True, kw_only=True)
class SASolverScheduler(Scheduler):
    """SA-Solver (Xue et al. 2023, algorithm 1), stochastic where tau > 0, one network call a step.

    Order corrector_order (weak, and 2 at most, where tau > 0). The fields are the Hub's. A run ends at the least
    noise of training. diffusers sums large exponentials in float32, which loses up to four digits; here they are exact.
    tau_func, which no JSON can hold, is the argument `tau` of plan. variance_type says that the network also
    predicts a variance, which this solver leaves aside.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: tuple[float, ...] | None = None
    predictor_order: int = 2
    corrector_order: int = 2
    prediction_type: str = "epsilon"
    tau_func: Any = None
    thresholding: bool = False
    dynamic_thresholding_ratio: float = 0.995
    sample_max_value: float = 1.0
    algorithm_type: str = "data_prediction"
    lower_order_final: bool = True
    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    use_beta_sigmas: bool = False
    use_flow_sigmas: bool = False
    flow_shift: float = 1.0
    lambda_min_clipped: float = -np.inf
    variance_type: str | None = None
    timestep_spacing: str = "linspace"
    steps_offset: int = 0

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
        if self.tau_func is not None:
            raise ValueError("tau_func cannot stand in a config; remove it and pass tau to plan")
        kind = choose("algorithm_type", self.algorithm_type, ("data_prediction", "noise_prediction"))
        for name in ("predictor_order", "corrector_order"):
            if getattr(self, name) not in (1, 2, 3, 4):
                raise ValueError(f"{name} is {getattr(self, name)}; it can be 1 to 4")
        steps = lay_levels(self, num_inference_steps, timesteps, repeat_last=True)
        n, start = len(steps.t), first_step(len(steps.t), strength)
        left = np.arange(n, 0, -1) if self.lower_order_final else np.full(n, n)
        predictor, corrector = np.minimum(self.predictor_order, left), np.minimum(self.corrector_order, left + 1)
        grid = grid_of(self, steps).rows(start)
        solver = solvers.sa(
            predictor[start:].tolist(), corrector[start:].tolist(), taus(tau, grid.t),
            noise_prediction=kind == "noise_prediction", clipped=self.thresholding,
        )
        return tabulate_preserving(self, solver, grid)

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(alpha, sigma) at training timesteps t."""
        return log_snr_levels(self, t)


def taus(tau: Callable[[float], float] | float | None, t: np.ndarray) -> list[float]:
    """tau at each timestep."""
    if tau is None:
        return [float(200 <= at <= 800) for at in t]
    return [float(tau(at)) for at in t] if callable(tau) else [float(tau)] * len(t)
