"""MiniMaxH3Scheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from fdiff import solvers, spacing
from fdiff.plan import Plan
from fdiff.schedulers.exploding import Steps, given_sigmas
from fdiff.schedulers.fields import Positive
from fdiff.schedulers.flow import FlowScheduler
from fdiff.schedulers.options import one_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class MiniMaxH3Scheduler(FlowScheduler):
    """Euler's method on MiniMax-H3's flow, whose time t = 1 - sigma runs to the data; order 1, one network call a step.

        x = x + (sigma - sigma_to) out,  out = x0 - eps

    The field is the Hub's: 12 for video, 3 for audio; `dataclasses.replace(scheduler, shift=3.0)` makes the other.
    As in diffusers, num_inference_steps counts the levels with the 0 at the end, so a run has one step less.
    """

    num_train_timesteps: ClassVar[int] = 1
    invert_sigmas: ClassVar[bool] = True

    shift: Positive = 12.0

    def plan(self, num_inference_steps: int | None = None, *, sigmas: Sequence[float] | None = None) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many levels, 0 being the last; one more than the steps.
            sigmas: the levels themselves, falling from 1 at most to 0, as they are.

        Raises ValueError for one level, or levels that do not end at 0.
        """
        if one_of(num_inference_steps=num_inference_steps, sigmas=sigmas) == "sigmas":
            levels = given_sigmas(sigmas)
            if levels[0] > 1 or levels[-1] != 0:
                raise ValueError("sigmas must fall from 1 at most to 0")
        else:
            n = spacing.check_steps(num_inference_steps)
            if n == 1:
                raise ValueError("num_inference_steps is 1; it counts the levels with the 0 at the end, "
                                 "so it must be 2 or more")
            levels = spacing.shift_flow(np.linspace(1, 0, n), self.shift)
        return self._rows(solvers.ddim(), Steps(1 - levels[:-1], levels[:-1], levels[1:]))
