"""LMSDiscreteScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from fdiff import solvers, spacing
from fdiff.plan import Plan
from fdiff.schedulers.exploding import ExplodingScheduler, lay_steps
from fdiff.schedulers.fields import SigmaLayouts


@dataclasses.dataclass(frozen=True, kw_only=True)
class LMSDiscreteScheduler(SigmaLayouts, ExplodingScheduler):
    """A linear multistep method (k-diffusion's LMS), order 4, one network call a step; deterministic.

    The fields are the Hub's. A run of strength below 1 warms up anew; diffusers gives its first steps the
    weights of slopes that it does not have.
    """

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
        spacing.check_count("order", order, 10)
        steps = lay_steps(self, num_inference_steps, timesteps, sigmas, strength)
        return self._table(solvers.lms(order), steps)
