"""HeliosScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from fdiff import solvers
from fdiff.plan import Plan
from fdiff.schedulers.flow import flow_levels, flow_velocity, tabulate_flow
from fdiff.schedulers.options import choose
from fdiff.schedulers.preserving import grid_of, tabulate_preserving
from fdiff.schedulers.scheduler import Scheduler
from fdiff.schedulers.stages import lay_stage, renoising
from fdiff.schedulers.unipc_multistep import unipc_solver


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeliosScheduler(Scheduler):
    """A flow in stages, x twice as large in each (Helios); UniPC of order solver_order + 1, or Euler's method, order 1.

    Deterministic, one network call a step. Each stage is a run and a plan of its own, with sigma from 0.999 to 0 and
    timesteps between those of its neighbours; between two of them x is enlarged and `renoising` says how much noise
    it gets. The fields are the Hub's. As UniPCMultistepScheduler, a step to sigma 0 has order 1, and a single stage
    begins a millionth below 1, where UniPC's orders above 1 are NaN in diffusers, which also takes 1000 for
    num_train_timesteps where it bounds the first timestep. With scheduler_type euler the network
    predicts velocities, whatever prediction_type says.
    """

    num_train_timesteps: int = 1000
    shift: float = 1.0
    stages: int = 3
    stage_range: tuple[float, ...] = (0, 1 / 3, 2 / 3, 1)
    gamma: float = 1 / 3
    thresholding: bool = False
    prediction_type: str = "flow_prediction"
    solver_order: int = 2
    predict_x0: bool = True
    solver_type: str = "bh2"
    lower_order_final: bool = True
    disable_corrector: tuple[int, ...] = ()
    solver_p: Any = None
    use_flow_sigmas: bool = True
    scheduler_type: str = "unipc"
    use_dynamic_shifting: bool = False
    time_shift_type: str = "exponential"

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        stage_index: int = 0,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> Plan:
        """The table of one stage's run.

        Args:
            num_inference_steps: how many steps.
            stage_index: which of the stages, from 0.
            sigmas: the levels of a scheduler of one stage, falling, without the 0 at the end.
            mu: the resolution's shift, where use_dynamic_shifting is on.
        """
        steps = lay_stage(self, num_inference_steps, stage_index, sigmas, mu)
        if choose("scheduler_type", self.scheduler_type, ("unipc", "euler")) == "euler":
            return tabulate_flow(self, solvers.ddim(), steps)
        if self.thresholding:
            raise ValueError("thresholding has no numbers in this class; leave it false")
        steps = steps._replace(sigma=np.minimum(steps.sigma, 1 - 1e-6))
        return tabulate_preserving(self, unipc_solver(self, len(steps.t)), grid_of(self, steps))

    def renoising(self, stage_index: int) -> tuple[float, float]:
        """(a, b) for x = a x + b noise as that stage begins; noise as `fdiff.schedulers.stages.renoising` says."""
        return renoising(self, stage_index)

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(1 - sigma, sigma) of the whole flow at timesteps t, sigma = t / num_train_timesteps."""
        return flow_levels(self, t)

    def velocity(self, x0: jax.Array, noise: jax.Array, t: Any) -> jax.Array:
        """noise - x0, the target of the network."""
        return flow_velocity(self, x0, noise)
