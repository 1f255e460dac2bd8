"""CogVideoXDPMScheduler."""

from __future__ import annotations

import dataclasses

import numpy as np

from fdiff import solvers, spacing
from fdiff.plan import Plan
from fdiff.schedulers.cogvideox_ddim import VideoScheduler


@dataclasses.dataclass(frozen=True, kw_only=True)
class CogVideoXDPMScheduler(VideoScheduler):
    """SDE-DPM-Solver++ 2M (Lu et al. 2022b, section 5) with CogVideoX's noise schedule.

    Order 2 but for the first step and the last, stochastic, one network call a step. The fields are those of
    CogVideoXDDIMScheduler, with the same schedule; the options that clip do nothing here either.
    """

    def plan(self, num_inference_steps: int | None = None, *, strength: float = 1.0) -> Plan:
        """The table of a run of that many steps; strength below 1 keeps its last part (image to image)."""
        n = spacing.check_steps(num_inference_steps)
        grid = self._rows(n, strength)
        ends = grid.t < self.num_train_timesteps // n
        solver = solvers.dpm_multistep(np.where(ends, 1, 2).tolist(), stochastic=True)
        twice = ~ends & (np.arange(len(ends)) > 0)  # diffusers drops what it draws first
        return self._tabulate(solver, grid).drawing(1 + twice)
