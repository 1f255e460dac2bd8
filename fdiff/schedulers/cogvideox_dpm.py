"""CogVideoXDPMScheduler."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from fdiff import solvers, spacing
from fdiff.plan import Plan, tabulate
from fdiff.schedulers.cogvideox_ddim import shifted_signal, video_grid
from fdiff.schedulers.scheduler import Scheduler, levels_at


@dataclasses.dataclass(frozen=True, kw_only=True)
class CogVideoXDPMScheduler(Scheduler):
    """SDE-DPM-Solver++ 2M (Lu et al. 2022b, section 5) with CogVideoX's noise schedule.

    Order 2 but for the first step and the last, stochastic, one network call a step. The fields are those of
    CogVideoXDDIMScheduler, with the same schedule; the options that clip do nothing here either.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.0120
    beta_schedule: str = "scaled_linear"
    trained_betas: tuple[float, ...] | None = None
    clip_sample: bool = True
    set_alpha_to_one: bool = True
    steps_offset: int = 0
    prediction_type: str = "epsilon"
    clip_sample_range: float = 1.0
    sample_max_value: float = 1.0
    timestep_spacing: str = "leading"
    rescale_betas_zero_snr: bool = False
    snr_shift_scale: float = 3.0

    def plan(self, num_inference_steps: int | None = None, *, strength: float = 1.0) -> Plan:
        """The table of a run of that many steps; strength below 1 keeps its last part (image to image)."""
        n = spacing.check_steps(num_inference_steps)
        grid = video_grid(self, n, strength)
        ends = grid.t < self.num_train_timesteps // n
        solver = solvers.dpm_multistep(np.where(ends, 1, 2).tolist(), stochastic=True)
        return tabulate(solver, grid, self.prediction_type)

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(alpha, sigma) at training timesteps t, alpha^2 + sigma^2 = 1."""
        return levels_at(shifted_signal(self), t)
