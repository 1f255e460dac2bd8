"""HeunDiscreteScheduler."""

from __future__ import annotations

import dataclasses

import numpy as np

from fdiff import solvers, spacing
from fdiff.plan import Solver
from fdiff.schedulers.exploding import ExplodingScheduler, Steps, halve, train_sigmas
from fdiff.schedulers.fields import Clipping, LatentBetas, SigmaLayouts


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeunDiscreteScheduler(SigmaLayouts, Clipping, LatentBetas, ExplodingScheduler):
    """Heun's method (Karras et al. 2022, algorithm 1), order 2, two network calls a step; deterministic.

    The fields are the Hub's. The plan has two rows a step and one for the last.
    """

    clip_sample: bool = False

    def _solve(self, steps: Steps) -> tuple[Solver, Steps]:
        last = spacing.interpolate_timesteps(steps.sigma_to[-1:], train_sigmas(self))
        return solvers.heun(), halve(steps, steps.sigma_to, np.append(steps.t[1:], last))
