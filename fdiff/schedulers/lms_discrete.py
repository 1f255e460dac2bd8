"""LMSDiscreteScheduler."""

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
class LMSDiscreteScheduler(Scheduler):
    """A linear multistep method (k-diffusion's LMS), order 4, one network call a step; deterministic.

    The fields are the Hub's. A run of strength below 1 warms up anew; diffusers gives its first steps the
    weights of slopes that it does not have.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
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
        order: int = 4,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps.
            timesteps: the timesteps themselves, falling, in place of their number.
            sigmas: the noise levels themselves, falling, with the one to reach at the end.
            strength: below 1, only that last part of the run (image to image).
            order: of how many slopes a step is made.
        """
        if order < 1:
            raise ValueError(f"order is {order}; it must be 1 or more")
        steps = lay_steps(self, num_inference_steps, timesteps, sigmas, strength)
        return tabulate_exploding(self, solvers.lms(order), steps)

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(1, sigma) at training timesteps t: x = x0 + sigma eps."""
        return exploding_levels(self, t)
