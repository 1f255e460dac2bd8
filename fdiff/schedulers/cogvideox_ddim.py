"""CogVideoXDDIMScheduler."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from fdiff import noise, solvers
from fdiff.plan import Grid, Plan
from fdiff.schedulers.fields import Clipping, LatentBetas, Number, Positive, Spacing
from fdiff.schedulers.options import first_step
from fdiff.schedulers.timesteps import TimestepScheduler, strided


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoScheduler(Clipping, Spacing, LatentBetas, TimestepScheduler):
    """The schedule of CogVideoX; no Hub class, but what its two inherit."""

    beta_schedule: str = "scaled_linear"
    set_alpha_to_one: bool = True
    sample_max_value: Number = 1.0
    timestep_spacing: str = "leading"
    rescale_betas_zero_snr: bool = False
    snr_shift_scale: Positive = 3.0

    def _signal(self) -> np.ndarray:
        return shifted_signal(self)

    def _rows(self, n: int | None, strength: float) -> Grid:
        """The rows of a run of n steps, in strides as DDIM takes them."""
        grid = strided(self, self._signal(), n)
        return grid.rows(first_step(len(grid.t), strength))


@dataclasses.dataclass(frozen=True, kw_only=True)
class CogVideoXDDIMScheduler(VideoScheduler):
    """DDIM (Song et al. 2021, eq. 12) with CogVideoX's noise schedule; order 1, deterministic, one network call a step.

        alpha^2 = a / (snr_shift_scale + (1 - snr_shift_scale) a),  a the alpha^2 of the betas

    The fields are the Hub's. As in diffusers, x0 is never clipped: clip_sample, clip_sample_range and
    sample_max_value stand in configs and do nothing.
    """

    def plan(self, num_inference_steps: int | None = None, *, strength: float = 1.0) -> Plan:
        """The table of a run of that many steps; strength below 1 keeps its last part (image to image)."""
        return self._tabulate(solvers.ddim(), self._rows(num_inference_steps, strength))


@functools.lru_cache(maxsize=16)
def shifted_signal(scheduler: VideoScheduler) -> np.ndarray:
    """alpha^2 (T,) at each training timestep, its SNR divided by snr_shift_scale."""
    betas = noise.betas(scheduler.beta_schedule, scheduler.num_train_timesteps, scheduler.beta_start,
                        scheduler.beta_end, scheduler.trained_betas)
    alpha2, scale = noise.check_signal(noise.alphas_cumprod(betas)), scheduler.snr_shift_scale
    alpha2 = alpha2 / (scale + (1 - scale) * alpha2)
    return noise.zero_terminal_signal(alpha2) if scheduler.rescale_betas_zero_snr else alpha2
