"""EulerAncestralDiscreteScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from fdiff import solvers
from fdiff.plan import Plan
from fdiff.schedulers.exploding import exploding_levels, lay_steps, tabulate_exploding
from fdiff.schedulers.scheduler import Scheduler


@dataclasses.dataclass(frozen=True, kw_only=True)
class EulerAncestralDiscreteScheduler(Scheduler):
    """Euler's method with ancestral noise (k-diffusion; DDIM's eta = 1, Song et al. 2021, eq. 16).

    Order 1 (weak), one network call a step; stochastic. The fields are the Hub's.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: tuple[float, ...] | None = None
    prediction_type: str = "epsilon"
    timestep_spacing: str = "linspace"
    steps_offset: int = 0
    rescale_betas_zero_snr: bool = False

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
        return tabulate_exploding(self, solvers.ddim(eta=1.0), steps)

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(1, sigma) at training timesteps t: x = x0 + sigma eps."""
        return exploding_levels(self, t)
