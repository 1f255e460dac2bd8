"""CogVideoXDDIMScheduler."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from fdiff import noise, solvers
from fdiff.plan import Grid, Plan, tabulate
from fdiff.schedulers.options import first_step, strided
from fdiff.schedulers.scheduler import Scheduler, levels_at


@dataclasses.dataclass(frozen=True, kw_only=True)
class CogVideoXDDIMScheduler(Scheduler):
    """DDIM (Song et al. 2021, eq. 12) with CogVideoX's noise schedule; order 1, deterministic, one network call a step.

        alpha^2 = a / (snr_shift_scale + (1 - snr_shift_scale) a),  a the alpha^2 of the betas

    The fields are the Hub's. As in diffusers, x0 is never clipped: clip_sample, clip_sample_range and
    sample_max_value stand in configs and do nothing.
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
        return tabulate(solvers.ddim(), video_grid(self, num_inference_steps, strength), self.prediction_type)

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(alpha, sigma) at training timesteps t, alpha^2 + sigma^2 = 1."""
        return levels_at(shifted_signal(self), t)


def video_grid(scheduler: Any, n: int | None, strength: float) -> Grid:
    """The rows of a run of n steps, in strides as DDIM takes them."""
    t, t_to = strided(scheduler, n)
    signal = shifted_signal(scheduler)
    last = 1.0 if scheduler.set_alpha_to_one else signal[0]
    alpha2, alpha2_to = signal[t.astype(int)], np.where(t_to < 0, last, signal[np.maximum(t_to, 0).astype(int)])
    grid = Grid(t, np.sqrt(alpha2), np.sqrt(1 - alpha2), np.sqrt(alpha2_to), np.sqrt(1 - alpha2_to))
    return grid.rows(first_step(len(t), strength))


@functools.lru_cache(maxsize=16)
def shifted_signal(scheduler: Any) -> np.ndarray:
    """alpha^2 (T,) at each training timestep, its SNR divided by snr_shift_scale."""
    betas = noise.betas(scheduler.beta_schedule, scheduler.num_train_timesteps, scheduler.beta_start,
                        scheduler.beta_end, scheduler.trained_betas)
    alpha2, scale = noise.alphas_cumprod(betas), scheduler.snr_shift_scale
    alpha2 = alpha2 / (scale + (1 - scale) * alpha2)
    return noise.zero_terminal_signal(alpha2) if scheduler.rescale_betas_zero_snr else alpha2
