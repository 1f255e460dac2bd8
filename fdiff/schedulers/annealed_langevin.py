"""AnnealedLangevinScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import solvers
from fdiff.plan import Grid, Plan
from fdiff.schedulers.exploding import train_sigmas
from fdiff.schedulers.fields import Positive, Spacing
from fdiff.schedulers.options import first_step
from fdiff.schedulers.timesteps import TimestepScheduler, spaced_or_given


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnnealedLangevinScheduler(Spacing, TimestepScheduler):
    """Langevin dynamics whose noise falls (Song & Ermon 2019), as GeoDiff draws conformers (Xu et al. 2022).

        x = x - s sigma eps + sqrt(2 s) sigma noise,   sigma = sqrt(1 / alpha^2 - 1) of the betas, x = x0 + sigma eps

    One network call a step, stochastic, without an order: more steps or a larger s, `step_size`, follow the noise
    further down. GeoDiff's own is 0.01, with 5,000 timesteps. No Hub class has it.
    """

    step_size: Positive = 0.01
    timestep_spacing: str = "leading"

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        strength: float = 1.0,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps, at most num_train_timesteps.
            timesteps: the timesteps themselves, falling, in place of their number.
            strength: below 1, only that last part of the run.
        """
        t = spaced_or_given(self, num_inference_steps, timesteps)
        sigma, one = train_sigmas(self)[t.astype(int)], np.ones(len(t))
        grid = Grid(t, one, sigma, one, np.append(sigma[1:], 0.0)).rows(first_step(len(t), strength))
        return self._tabulate(solvers.langevin(self.step_size), grid, start_std=grid.sigma)

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(1, sigma) at whole training timesteps t."""
        alpha, sigma = super().levels(t)
        return jnp.ones_like(sigma), sigma / alpha
