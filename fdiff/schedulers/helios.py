"""HeliosScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from fdiff import solvers
from fdiff.plan import Pair, Plan
from fdiff.schedulers.fields import Instead, Offset, SolverOrder
from fdiff.schedulers.options import choose
from fdiff.schedulers.preserving import reading, tabulate_steps
from fdiff.schedulers.stages import StagedScheduler, lay_stage
from fdiff.schedulers.unipc_multistep import OWN_PREDICTOR, unipc_solver


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeliosScheduler(SolverOrder, StagedScheduler):
    """A flow in stages, x twice as large in each (Helios); UniPC of order solver_order + 1, or Euler's method, order 1.

    Deterministic, one network call a step. Each stage is a run and a plan of its own, with sigma from 0.999 to 0 and
    timesteps between those of its neighbours; between two of them x is enlarged and `renoising` says how much noise
    it gets. The fields are the Hub's. As UniPCMultistepScheduler, a step to sigma 0 has order 1, and a single stage
    begins a millionth below 1, where UniPC's orders above 1 are NaN in diffusers, which also takes 1000 for
    num_train_timesteps where it bounds the first timestep. With scheduler_type euler the network
    predicts velocities, whatever prediction_type says.
    """

    thresholding: bool = False
    predict_x0: bool = True
    solver_type: str = "bh2"
    disable_corrector: tuple[Offset, ...] = ()
    solver_p: Annotated[None, Instead(OWN_PREDICTOR)] = None
    scheduler_type: str = "unipc"

    def _stage(self, n: int | None, stage_index: int, sigmas: Sequence[float] | None, mu: float | None) -> Plan:
        steps = lay_stage(self, n, stage_index, sigmas, mu)
        if self._euler():
            return self._rows(solvers.ddim(), steps)
        if self.thresholding:
            raise ValueError("thresholding has no numbers in this class; leave it false")
        steps = steps._replace(sigma=np.minimum(steps.sigma, 1 - 1e-6))
        return tabulate_steps(self, unipc_solver(self, len(steps.t)), steps)

    def _euler(self) -> bool:
        return choose("scheduler_type", self.scheduler_type, ("unipc", "euler")) == "euler"

    def _reads(self, alpha: Any, sigma: Any) -> tuple[Pair, Pair]:
        return super()._reads(alpha, sigma) if self._euler() else reading(self, alpha, sigma)
