"""What the schedulers of latent consistency models share: options, timesteps on the schedule of the distillation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from fdiff import spacing
from fdiff.messages import show
from fdiff.schedulers.fields import Clipping, Count, LatentBetas, Number, Spacing, Thresholding
from fdiff.schedulers.options import given_timesteps, one_of
from fdiff.schedulers.timesteps import TimestepScheduler


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistilledScheduler(Clipping, Thresholding, Spacing, LatentBetas, TimestepScheduler):
    """The options of latent consistency models; no Hub class, but what LCM and TCD inherit."""

    beta_schedule: str = "scaled_linear"
    original_inference_steps: Count = 50
    clip_sample: bool = False
    set_alpha_to_one: bool = True
    timestep_spacing: str = "leading"
    timestep_scaling: Number = 10.0
    rescale_betas_zero_snr: bool = False


def distilled_timesteps(
    scheduler: Any,
    num_inference_steps: int | None,
    timesteps: Sequence[float] | None,
    trained: np.ndarray,
    original_steps: int,
) -> np.ndarray:
    """The timesteps of a run: some of `trained`, which rise, or the user's own.

    Raises ValueError for more steps than `trained` has, or than original_steps.
    """
    given = one_of(num_inference_steps=num_inference_steps, timesteps=timesteps)
    if given == "timesteps":
        return given_timesteps(timesteps, scheduler.num_train_timesteps)
    n = spacing.check_steps(num_inference_steps, scheduler.num_train_timesteps)
    most = min(len(trained), original_steps)
    if n > most:
        raise ValueError(f"num_inference_steps is {n}, more than the {most} timesteps that "
                         "original_inference_steps and trained_strength leave; ask for fewer or raise those")
    return trained[::-1][np.floor(np.linspace(0, len(trained), n, endpoint=False)).astype(int)].astype(np.float64)


def original_steps(scheduler: Any, original_inference_steps: int | None) -> int:
    """How many steps the distillation had. Raises ValueError if more than the training timesteps."""
    n = scheduler.original_inference_steps if original_inference_steps is None else original_inference_steps
    spacing.check_count("original_inference_steps", n)
    if n > scheduler.num_train_timesteps:
        raise ValueError(f"original_inference_steps is {show(n)}; it must lie within 1 and "
                         f"num_train_timesteps, {scheduler.num_train_timesteps}")
    return n


def strided_timesteps(scheduler: Any, n: int, strength: float) -> np.ndarray:
    """The timesteps of the distillation, rising: the last of each of n strides, as far as strength reaches."""
    return np.arange(1, int(n * strength) + 1) * (scheduler.num_train_timesteps // n) - 1
