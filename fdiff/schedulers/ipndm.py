"""IPNDMScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import solvers, spacing
from fdiff.plan import Grid, Pair, Plan, v_prediction
from fdiff.schedulers.fields import Share, TrainTimesteps
from fdiff.schedulers.options import first_step, one_of
from fdiff.schedulers.scheduler import Scheduler


@dataclasses.dataclass(frozen=True, kw_only=True)
class IPNDMScheduler(Scheduler):
    """Improved PNDM on a cosine schedule (crowsonkb's v-diffusion; Liu et al. 2022, eq. 12).

        sigma = sin^2(pi u / 2), alpha^2 + sigma^2 = 1,  u from 1 to 0 in equal steps

    Order 2, one network call a step; deterministic. The fields are the Hub's; trained_betas are the sigmas
    themselves, one more than the steps. The network predicts v and is told 2 / pi arctan(sigma / alpha). The first
    step, from alpha = 0, is DDIM's; diffusers takes x0 for 0 there.
    """

    num_train_timesteps: TrainTimesteps = 1000
    trained_betas: tuple[Share, ...] | None = None

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
            timesteps: what the network is told at each step, falling within 0 and 1, in place of their number.
            strength: below 1, only that last part of the run, with a warm-up of its own.
        """
        if one_of(num_inference_steps=num_inference_steps, timesteps=timesteps) == "timesteps":
            t = np.append(spacing.numbers("timesteps", timesteps), 0.0)
            if not spacing.falls(t) or len(t) < 2 or t[0] > 1:
                raise ValueError("timesteps must fall from each to the next, within 0 and 1")
            sigma = np.sin(t * np.pi / 2)
        else:
            n = spacing.check_steps(num_inference_steps)
            sigma = np.sin(np.linspace(1, 0, n + 1) * np.pi / 2) ** 2
            if self.trained_betas is not None:
                sigma = np.asarray(self.trained_betas, np.float64)
                if len(sigma) != n + 1:
                    raise ValueError(f"trained_betas are {len(sigma)} levels, so num_inference_steps must be "
                                     f"{len(sigma) - 1}, not {n}")
        alpha = np.sqrt(1 - sigma**2)
        t = np.arctan2(sigma, alpha) / np.pi * 2
        grid = Grid(t[:-1], alpha[:-1], sigma[:-1], alpha[1:], sigma[1:]).rows(first_step(len(t) - 1, strength))
        return self._tabulate(solvers.ipndm(), grid)

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(alpha, sigma) where the network is told t, within 0 and 1: the cosine and sine of pi t / 2."""
        angle = jnp.asarray(t, jnp.float32) * np.pi / 2
        return jnp.cos(angle), jnp.sin(angle)

    def times(self, share: jax.Array) -> jax.Array:
        """The shares themselves."""
        return share

    def _reads(self, alpha: Any, sigma: Any) -> tuple[Pair, Pair]:
        return v_prediction(alpha, sigma)
