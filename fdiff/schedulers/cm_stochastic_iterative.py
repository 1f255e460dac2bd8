"""CMStochasticIterativeScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import solvers, spacing
from fdiff.plan import Grid, Pair, Plan
from fdiff.schedulers.fields import AtLeastZero, Positive, TrainTimesteps
from fdiff.schedulers.level import hypot
from fdiff.schedulers.options import first_step, given_timesteps, one_of
from fdiff.schedulers.scheduler import Scheduler


@dataclasses.dataclass(frozen=True, kw_only=True)
class CMStochasticIterativeScheduler(Scheduler):
    """Consistency models (Song et al. 2023, algorithm 1): each step jumps to x0 and noises it again.

        x  = x0 + s_noise sqrt(sigma_to^2 - sigma_min^2) noise
        x0 = clip(c_skip x + c_out out),  c_skip = d^2 / ((sigma - sigma_min)^2 + d^2),
                                          c_out = (sigma - sigma_min) d / sqrt(sigma^2 + d^2),  d = sigma_data

    No order, one network call a step; stochastic but for the last step. The fields are the Hub's. The network sees
    x / sqrt(sigma^2 + d^2) and is told 250 log(sigma).
    """

    num_train_timesteps: TrainTimesteps = 40
    sigma_min: Positive = 0.002
    sigma_max: Positive = 80.0
    sigma_data: Positive = 0.5
    s_noise: AtLeastZero = 1.0
    rho: Positive = 7.0
    clip_denoised: bool = True

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
            timesteps: which of the num_train_timesteps Karras levels to visit, falling, in place of their number;
                0 is sigma_max.
            strength: below 1, only that last part of the run (image to image).
        """
        most = self.num_train_timesteps
        if one_of(num_inference_steps=num_inference_steps, timesteps=timesteps) == "timesteps":
            visited = given_timesteps(timesteps, most)
        else:
            visited = spacing.timesteps("leading", most, num_inference_steps)
        sigma = self._sigmas()[visited[::-1].astype(int)]
        sigma_to = np.append(sigma[1:], self.sigma_min)
        noise = self.s_noise * np.sqrt(np.maximum(sigma_to**2 - self.sigma_min**2, 0))
        one = np.ones_like(sigma)
        grid = Grid(250 * np.log(sigma), one, sigma, one, noise).rows(first_step(len(sigma), strength))
        clip = (1.0 if self.clip_denoised else np.inf, 0.0)
        plan = self._tabulate(solvers.consistency(), grid, start_std=grid.sigma, clip=clip)
        return plan.drawing(len(sigma) > 1)

    def _reads(self, alpha: Any, sigma: Any) -> tuple[Pair, Pair]:
        above, data = sigma - self.sigma_min, self.sigma_data
        c_skip, c_out = data**2 / (above**2 + data**2), above * data / hypot(sigma, data)
        return (c_skip, c_out), ((1 - c_skip) / sigma, -c_out / sigma)

    def _c_in(self, alpha: Any, sigma: Any) -> Any:
        return 1 / hypot(sigma, self.sigma_data)

    def _sigmas(self) -> np.ndarray:
        """The Karras levels (T,), falling."""
        return spacing.karras(self.sigma_min, self.sigma_max, self.num_train_timesteps, self.rho)

    def times(self, share: jax.Array) -> jax.Array:
        """Times 250 log(sigma) at these shares of the Karras levels but the last, where x0 is x whatever is said."""
        count = max(self.num_train_timesteps - 1, 1)
        at = jnp.clip(jnp.floor(count * (1 - share)).astype(jnp.int32), 0, count - 1)
        return jnp.asarray(250 * np.log(self._sigmas()), jnp.float32)[at]

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(1, sigma) where the network is told t = 250 log(sigma): x = x0 + sigma eps."""
        sigma = jnp.exp(jnp.asarray(t, jnp.float32) / 250)
        return jnp.ones_like(sigma), sigma
