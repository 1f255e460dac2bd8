"""What the schedulers share that visit training timesteps in x = alpha x0 + sigma eps, alpha^2 + sigma^2 = 1."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import noise, spacing
from fdiff.plan import Grid
from fdiff.schedulers.fields import Betas, PredictionType
from fdiff.schedulers.level import Level
from fdiff.schedulers.options import given_timesteps, one_of
from fdiff.schedulers.scheduler import Scheduler


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimestepScheduler(Betas, Scheduler):
    """A scheduler of whole timesteps; no Hub class, but what those of this kind inherit."""

    prediction_type: PredictionType = "epsilon"

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(alpha, sigma) at whole training timesteps t, alpha^2 + sigma^2 = 1."""
        return levels_at(self._signal(), t)

    def level(self, t: Any) -> Level:
        """As every scheduler's `level`. Raises ValueError where prediction_type epsilon meets pure noise."""
        alpha2 = self._signal()
        self._reads(np.sqrt(alpha2), np.sqrt(1 - alpha2))
        return super().level(t)

    def _signal(self) -> np.ndarray:
        """alpha^2 (T,) at each training timestep."""
        return signal(self)


@functools.lru_cache(maxsize=64)
def signal(scheduler: Any) -> np.ndarray:
    """alpha^2 (T,) at each training timestep, float64, down to 0 where rescale_betas_zero_snr is set."""
    betas = noise.betas(
        scheduler.beta_schedule, scheduler.num_train_timesteps, scheduler.beta_start, scheduler.beta_end,
        scheduler.trained_betas,
    )
    if getattr(scheduler, "rescale_betas_zero_snr", False):
        betas = noise.zero_terminal_snr(betas)
    return noise.check_signal(noise.alphas_cumprod(betas))


def levels_at(alpha2: np.ndarray, t: Any) -> tuple[jax.Array, jax.Array]:
    """(alpha, sigma) at whole timesteps t, from alpha^2 (T,)."""
    t = jnp.asarray(t, jnp.int32)
    return jnp.asarray(np.sqrt(alpha2), jnp.float32)[t], jnp.asarray(np.sqrt(1 - alpha2), jnp.float32)[t]


def preserving_grid(t: np.ndarray, alpha2: np.ndarray, alpha2_to: np.ndarray) -> Grid:
    """The grid from these alpha^2 (n,) to those, variance preserving."""
    return Grid(t, np.sqrt(alpha2), np.sqrt(1 - alpha2), np.sqrt(alpha2_to), np.sqrt(1 - alpha2_to))


def chain(t: np.ndarray, alpha2: np.ndarray, last: float) -> Grid:
    """Rows from each alpha^2 to the next one and at the end to `last`, variance preserving."""
    return preserving_grid(t, alpha2, np.append(alpha2[1:], last))


def spaced_or_given(scheduler: Any, n: int | None, timesteps: Sequence[float] | None) -> np.ndarray:
    """n whole timesteps by timestep_spacing, or the user's own, falling. Raises ValueError for both or neither."""
    if one_of(num_inference_steps=n, timesteps=timesteps) == "timesteps":
        return given_timesteps(timesteps, scheduler.num_train_timesteps)
    kind, most = scheduler.timestep_spacing, scheduler.num_train_timesteps
    return np.round(spacing.timesteps(kind, most, n, offset=scheduler.steps_offset))


def strided(scheduler: Any, alpha2: np.ndarray, n: int | None, timesteps: Sequence[float] | None = None) -> Grid:
    """Rows by timestep_spacing, each to a whole stride lower and the last to the end (DDIM); or the user's own.

    alpha2 (T,) is that of the training; with set_alpha_to_one a run ends at a clean x, else at its first.
    """
    t = spaced_or_given(scheduler, n, timesteps)
    t_to = np.append(t[1:], -1.0) if timesteps is not None else t - scheduler.num_train_timesteps // len(t)
    last = 1.0 if scheduler.set_alpha_to_one else alpha2[0]
    to = np.where(t_to < 0, last, alpha2[np.maximum(t_to, 0).astype(int)])
    return preserving_grid(t, alpha2[t.astype(int)], to)
