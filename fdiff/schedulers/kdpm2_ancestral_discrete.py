"""KDPM2AncestralDiscreteScheduler."""

from __future__ import annotations

import dataclasses

from fdiff import solvers
from fdiff.plan import Solver
from fdiff.schedulers.exploding import ExplodingScheduler, Steps
from fdiff.schedulers.fields import LatentBetas, SigmaLayouts
from fdiff.schedulers.kdpm2_discrete import halve_at


@dataclasses.dataclass(frozen=True, kw_only=True)
class KDPM2AncestralDiscreteScheduler(SigmaLayouts, LatentBetas, ExplodingScheduler):
    """DPM-Solver-2 with ancestral noise (k-diffusion; Lu et al. 2022, algorithm 1), two network calls a step.

    Order 2 (weak); stochastic. The fields are the Hub's. The plan has two rows a step and
    one for the last. As in diffusers, Karras sigmas round the timesteps that the network is told at the start of
    each step, not in its middle.
    """

    def _solve(self, steps: Steps) -> tuple[Solver, Steps]:
        # the middle is sqrt(sigma sigma_down), and an ancestral step goes down to sigma_to^2 / sigma
        return solvers.dpm_2(eta=1.0), halve_at(self, steps, steps.sigma_to)
