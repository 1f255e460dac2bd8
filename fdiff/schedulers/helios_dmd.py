"""HeliosDMDScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from fdiff import solvers, spacing
from fdiff.plan import Plan
from fdiff.schedulers.fields import TimeShift
from fdiff.schedulers.stages import StagedScheduler, lay_stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeliosDMDScheduler(StagedScheduler):
    """HeliosScheduler's stages in a few steps of a distilled network: jump to x0, then mix the stage's first x back in.

        x = (1 - sigma_to) x0 + sigma_to first,  x0 = x - sigma out

    No order, since it follows no path; deterministic, one network call a step. The fields are the Hub's, of which
    prediction_type and use_flow_sigmas do nothing, as in diffusers. The doubled steps that Helios' pipeline takes for
    the first chunk of a film are twice the num_inference_steps here.
    """

    time_shift_type: TimeShift = "linear"

    def _stage(self, n: int | None, stage_index: int, sigmas: Sequence[float] | None, mu: float | None) -> Plan:
        levels = None if n is None else spacing.check_steps(n) + 1
        return self._rows(solvers.one_noise(), lay_stage(self, levels, stage_index, sigmas, mu, keep_last=False))
