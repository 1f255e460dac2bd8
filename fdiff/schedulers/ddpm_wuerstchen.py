"""DDPMWuerstchenScheduler."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import solvers, spacing
from fdiff.plan import Pair, Plan, epsilon
from fdiff.schedulers.fields import AtLeastZero, Positive
from fdiff.schedulers.options import first_step, one_of
from fdiff.schedulers.scheduler import Scheduler
from fdiff.schedulers.timesteps import chain
from fdiff.solvers.ddpm import posterior_std


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDPMWuerstchenScheduler(Scheduler):
    """DDPM (Ho et al. 2020, eq. 11) in continuous time, for Wuerstchen and Stable Cascade.

    Order 1, stochastic, one network call a step. Timesteps run from 1 to 0, alpha^2 = cos^2((t + s) / (1 + s) pi / 2)
    over its value at 0, within 0.0001 and 0.9999; `scaler` bends t. The last step draws no noise. The network
    predicts noise. The fields are the Hub's.
    """

    scaler: Positive = 1.0
    s: AtLeastZero = 0.008

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        strength: float = 1.0,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps.
            timesteps: the timesteps themselves, falling from 1 at most, and the one to reach, in place of their number.
            strength: below 1, only that last part of the run (image to image).
        """
        if one_of(num_inference_steps=num_inference_steps, timesteps=timesteps) == "timesteps":
            t = spacing.numbers("timesteps", timesteps)
            if not spacing.falls(t) or len(t) < 2 or t[0] > 1 or t[-1] < 0:
                raise ValueError("timesteps must be two numbers or more that fall from 1 at most to 0 at least")
        else:
            t = np.linspace(1, 0, spacing.check_steps(num_inference_steps) + 1)
        alpha2 = np.asarray(self._signal(t, np))
        start = first_step(len(t) - 1, strength)
        grid = chain(t[:-1], alpha2[:-1], alpha2[-1]).rows(start)
        std = np.where(t[start + 1 :] == 0, 0.0, posterior_std(grid))
        return self._tabulate(solvers.ddpm(std), grid).drawing()

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(alpha, sigma) at timesteps t between 0 and 1, alpha^2 + sigma^2 = 1."""
        alpha2 = self._signal(jnp.asarray(t, jnp.float32), jnp)
        return jnp.sqrt(alpha2), jnp.sqrt(1 - alpha2)

    def times(self, share: jax.Array) -> jax.Array:
        """The shares themselves."""
        return share

    def _reads(self, alpha: Any, sigma: Any) -> tuple[Pair, Pair]:
        return epsilon(alpha, sigma)

    def _signal(self, t: Any, xp: Any) -> Any:
        """alpha^2 at t, with NumPy or jax.numpy."""
        bent = 1 - (1 - t) ** self.scaler if self.scaler > 1 else t**self.scaler
        level = xp.cos((bent + self.s) / (1 + self.s) * np.pi / 2) ** 2
        return xp.clip(level / math.cos(self.s / (1 + self.s) * math.pi / 2) ** 2, 0.0001, 0.9999)
