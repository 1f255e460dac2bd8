"""DDIMInverseScheduler."""

from __future__ import annotations

import dataclasses

import numpy as np

from fdiff import solvers, spacing
from fdiff.plan import Plan
from fdiff.schedulers.fields import Clipping, Spacing
from fdiff.schedulers.options import choose, clipping, first_step
from fdiff.schedulers.timesteps import TimestepScheduler, preserving_grid


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDIMInverseScheduler(Clipping, Spacing, TimestepScheduler):
    """DDIM (Song et al. 2021, eq. 12) from an image to its noise; order 1, deterministic, one network call a step.

    Each row climbs one stride, and as in diffusers the network is told the timestep at its upper end. A run
    starts from a clean x, or with set_alpha_to_one false from the level of timestep 0. The fields are the Hub's.
    """

    set_alpha_to_one: bool = True
    timestep_spacing: str = "leading"
    rescale_betas_zero_snr: bool = False

    def plan(self, num_inference_steps: int | None = None, *, strength: float = 1.0) -> Plan:
        """The table of a run of that many steps; strength below 1 keeps its first part, the least noise."""
        n, most = spacing.check_steps(num_inference_steps), self.num_train_timesteps
        kind = choose("timestep_spacing", self.timestep_spacing, ("leading", "trailing"))
        t = np.round(spacing.timesteps(kind, most, n, offset=self.steps_offset))[::-1]
        below, alpha2 = np.minimum(t - most // n, most - 1), self._signal()
        first = 1.0 if self.set_alpha_to_one else alpha2[0]
        start = np.where(below < 0, first, alpha2[np.maximum(below, 0).astype(int)])
        grid = preserving_grid(t, start, alpha2[t.astype(int)]).rows(0, n - first_step(n, strength))
        return self._tabulate(solvers.ddim(), grid, clip=clipping(self))
