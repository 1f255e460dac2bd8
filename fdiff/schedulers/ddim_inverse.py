"""DDIMInverseScheduler."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from fdiff import solvers, spacing
from fdiff.plan import Grid, Plan, tabulate
from fdiff.schedulers.options import choose, clipping, first_step
from fdiff.schedulers.scheduler import Scheduler, preserving_levels, signal


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDIMInverseScheduler(Scheduler):
    """DDIM (Song et al. 2021, eq. 12) from an image to its noise; order 1, deterministic, one network call a step.

    Each row climbs one stride, and as in diffusers the network is told the timestep at its upper end. A run
    starts from a clean x, or with set_alpha_to_one false from the level of timestep 0. The fields are the Hub's.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: tuple[float, ...] | None = None
    clip_sample: bool = True
    set_alpha_to_one: bool = True
    steps_offset: int = 0
    prediction_type: str = "epsilon"
    clip_sample_range: float = 1.0
    timestep_spacing: str = "leading"
    rescale_betas_zero_snr: bool = False

    def plan(self, num_inference_steps: int | None = None, *, strength: float = 1.0) -> Plan:
        """The table of a run of that many steps; strength below 1 keeps its first part, the least noise."""
        n, most = spacing.check_steps(num_inference_steps), self.num_train_timesteps
        kind = choose("timestep_spacing", self.timestep_spacing, ("leading", "trailing"))
        t = np.round(spacing.timesteps(kind, most, n, offset=self.steps_offset))[::-1]
        below, alpha2 = np.minimum(t - most // n, most - 1), signal(self)
        first = 1.0 if self.set_alpha_to_one else alpha2[0]
        start = np.where(below < 0, first, alpha2[np.maximum(below, 0).astype(int)])
        end = alpha2[t.astype(int)]
        grid = Grid(t, np.sqrt(start), np.sqrt(1 - start), np.sqrt(end), np.sqrt(1 - end))
        grid = grid.rows(0, n - first_step(n, strength))
        return tabulate(solvers.ddim(), grid, self.prediction_type, clip=clipping(self))

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(alpha, sigma) at training timesteps t, alpha^2 + sigma^2 = 1."""
        return preserving_levels(self, t)
