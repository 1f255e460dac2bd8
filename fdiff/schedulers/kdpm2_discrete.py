"""KDPM2DiscreteScheduler."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from fdiff import solvers, spacing
from fdiff.plan import Solver
from fdiff.schedulers.exploding import ExplodingScheduler, Steps, halve, train_sigmas
from fdiff.schedulers.fields import LatentBetas, SigmaLayouts


@dataclasses.dataclass(frozen=True, kw_only=True)
class KDPM2DiscreteScheduler(SigmaLayouts, LatentBetas, ExplodingScheduler):
    """DPM-Solver-2 (Lu et al. 2022, algorithm 1; k-diffusion), order 2, two network calls a step.

    Deterministic. The fields are the Hub's. The plan has two rows a step and one for the last. As in diffusers,
    Karras sigmas round the timesteps that the network is told at the start of each step, not in its middle.
    """

    def _solve(self, steps: Steps) -> tuple[Solver, Steps]:
        return solvers.dpm_2(), halve_at(self, steps, np.sqrt(steps.sigma * steps.sigma_to))


def halve_at(scheduler: Any, steps: Steps, middle: np.ndarray) -> Steps:
    """Two rows a step, with a network call at the sigma in its middle."""
    told = spacing.interpolate_timesteps(middle, train_sigmas(scheduler))
    if scheduler.use_karras_sigmas:
        steps = steps._replace(t=np.round(steps.t))
    return halve(steps, middle, told)
