"""LCMScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from fdiff import solvers
from fdiff.plan import Grid, Pair, Plan, tabulate, unit_interval
from fdiff.schedulers.consistency import distilled_timesteps, original_steps, strided_timesteps
from fdiff.schedulers.options import clipping
from fdiff.schedulers.scheduler import Scheduler, preserving_levels, signal


@dataclasses.dataclass(frozen=True, kw_only=True)
class LCMScheduler(Scheduler):
    """Latent consistency models (Luo et al. 2023, algorithm 3): each step jumps to x0 and noises it again.

        x = alpha_to (c_skip x + c_out x0) + sigma_to noise,  c_skip = d^2 / (s^2 + d^2),  c_out = s / sqrt(s^2 + d^2)

    with d = 0.5 and s = timestep_scaling t. No order, one network call a step; stochastic but for the last step.
    The fields are the Hub's; set_alpha_to_one, steps_offset and timestep_spacing have no effect, as in diffusers.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    trained_betas: tuple[float, ...] | None = None
    original_inference_steps: int = 50
    clip_sample: bool = False
    clip_sample_range: float = 1.0
    set_alpha_to_one: bool = True
    steps_offset: int = 0
    prediction_type: str = "epsilon"
    thresholding: bool = False
    dynamic_thresholding_ratio: float = 0.995
    sample_max_value: float = 1.0
    timestep_spacing: str = "leading"
    timestep_scaling: float = 10.0
    rescale_betas_zero_snr: bool = False

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        original_inference_steps: int | None = None,
        strength: float = 1.0,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps, at most original_inference_steps.
            timesteps: the timesteps themselves, falling, in place of their number.
            original_inference_steps: steps of the distillation, in place of the field.
            strength: below 1, the steps are laid over only that last part of the schedule (image to image).
        """
        strength = unit_interval("strength", strength)
        original = original_steps(self, original_inference_steps)
        trained = strided_timesteps(self, original, strength)
        t = distilled_timesteps(self, num_inference_steps, timesteps, trained, original, strength)
        alpha2 = signal(self)[t.astype(int)]
        alpha2_to = np.append(alpha2[1:], 1.0)
        grid = Grid(t, np.sqrt(alpha2), np.sqrt(1 - alpha2), np.sqrt(alpha2_to), np.sqrt(1 - alpha2_to))
        return tabulate(solvers.consistency(self._skip), grid, self.prediction_type, clip=clipping(self))

    def _skip(self, t: float) -> Pair:
        scaled = t * self.timestep_scaling
        return 0.25 / (scaled**2 + 0.25), scaled / np.hypot(scaled, 0.5)

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(alpha, sigma) at training timesteps t, alpha^2 + sigma^2 = 1."""
        return preserving_levels(self, t)
