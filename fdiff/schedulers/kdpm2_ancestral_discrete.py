"""KDPM2AncestralDiscreteScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from fdiff import solvers, spacing
from fdiff.plan import Plan
from fdiff.schedulers.exploding import exploding_levels, halve, lay_steps, tabulate_exploding, train_sigmas
from fdiff.schedulers.scheduler import Scheduler


@dataclasses.dataclass(frozen=True, kw_only=True)
class KDPM2AncestralDiscreteScheduler(Scheduler):
    """DPM-Solver-2 with ancestral noise (k-diffusion; Lu et al. 2022, algorithm 1), two network calls a step.

    Order 2 (weak); stochastic. The fields are the Hub's. The plan has two rows a step and
    one for the last. As in diffusers, Karras sigmas round the timesteps that the network is told at the start of
    each step, not in its middle.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "linear"
    trained_betas: tuple[float, ...] | None = None
    use_karras_sigmas: bool | None = False
    use_exponential_sigmas: bool | None = False
    use_beta_sigmas: bool | None = False
    prediction_type: str = "epsilon"
    timestep_spacing: str = "linspace"
    steps_offset: int = 0

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        strength: float = 1.0,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps.
            timesteps: the timesteps themselves, falling, in place of their number.
            sigmas: the noise levels themselves, falling, with the one to reach at the end.
            strength: below 1, only that last part of the run (image to image).
        """
        steps = lay_steps(self, num_inference_steps, timesteps, sigmas, strength)
        middle = steps.sigma_to  # sqrt(sigma sigma_down), since an ancestral step goes down to sigma_to^2 / sigma
        told = spacing.interpolate_timesteps(middle, train_sigmas(self))
        if self.use_karras_sigmas:
            steps = steps._replace(t=np.round(steps.t))
        return tabulate_exploding(self, solvers.dpm_2(eta=1.0), halve(steps, middle, told))

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(1, sigma) at training timesteps t: x = x0 + sigma eps."""
        return exploding_levels(self, t)
