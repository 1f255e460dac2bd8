"""DDIMScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from fdiff import solvers
from fdiff.plan import Grid, Plan, tabulate
from fdiff.schedulers.options import clipping, first_step, given_timesteps, one_of, strided
from fdiff.schedulers.scheduler import Scheduler, preserving_levels, signal


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDIMScheduler(Scheduler):
    """DDIM (Song et al. 2021, eq. 12), order 1, one network call a step; stochastic where eta > 0.

    The fields are the Hub's. `set_alpha_to_one` ends at a clean x, otherwise at the level of timestep 0.
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
    thresholding: bool = False
    dynamic_thresholding_ratio: float = 0.995
    clip_sample_range: float = 1.0
    sample_max_value: float = 1.0
    timestep_spacing: str = "leading"
    rescale_betas_zero_snr: bool = False

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        strength: float = 1.0,
        eta: float = 0.0,
        use_clipped_model_output: bool = False,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps, at most num_train_timesteps.
            timesteps: the timesteps themselves, falling, in place of their number.
            strength: below 1, only that last part of the run (image to image).
            eta: how much of an ancestral step's noise is drawn, 0 to 1.
            use_clipped_model_output: take eps anew from the clipped x0 (GLIDE).
        """
        given = one_of(num_inference_steps=num_inference_steps, timesteps=timesteps)
        if given == "timesteps":
            t = given_timesteps(timesteps, self.num_train_timesteps)
            t_to = np.append(t[1:], -1.0)
        else:
            t, t_to = strided(self, num_inference_steps)
        alpha2 = signal(self)
        last = 1.0 if self.set_alpha_to_one else alpha2[0]
        alpha2_to = np.where(t_to < 0, last, alpha2[np.maximum(t_to, 0).astype(int)])
        alpha2 = alpha2[t.astype(int)]
        grid = Grid(t, np.sqrt(alpha2), np.sqrt(1 - alpha2), np.sqrt(alpha2_to), np.sqrt(1 - alpha2_to))
        solver = solvers.ddim(eta, clipped_model_output=use_clipped_model_output)
        grid = grid.rows(first_step(len(t), strength))
        return tabulate(solver, grid, self.prediction_type, clip=clipping(self))

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(alpha, sigma) at training timesteps t, alpha^2 + sigma^2 = 1."""
        return preserving_levels(self, t)
