"""ConsistencyDecoderScheduler."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from fdiff import noise, solvers
from fdiff.plan import Grid, Pair, Plan
from fdiff.schedulers.fields import Positive, TrainTimesteps
from fdiff.schedulers.level import hypot
from fdiff.schedulers.options import given_timesteps, one_of
from fdiff.schedulers.scheduler import Scheduler
from fdiff.schedulers.timesteps import levels_at

TIMESTEPS = (1008, 512)  # of the decoder that was published


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsistencyDecoderScheduler(Scheduler):
    """Consistency sampling (Song et al. 2023, algorithm 1) in two steps, for DALL-E 3's decoder of latents.

        x  = alpha_to x0 + sigma_to noise,  alpha^2 + sigma^2 = 1
        x0 = d^2 / (r^2 + d^2) x / alpha + r d / sqrt(r^2 + d^2) out,  r = sigma / alpha,  d = sigma_data

    No order, one network call a step; stochastic but for the last step. The fields are the Hub's. The network sees
    x / (alpha sqrt(r^2 + d^2)).
    """

    num_train_timesteps: TrainTimesteps = 1024
    sigma_data: Positive = 0.5

    def plan(self, num_inference_steps: int | None = None, *, timesteps: Sequence[float] | None = None) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: 2, at timesteps 1008 and 512.
            timesteps: the timesteps themselves, falling, in place of their number.
        """
        if one_of(num_inference_steps=num_inference_steps, timesteps=timesteps) == "timesteps":
            t = given_timesteps(timesteps, self.num_train_timesteps)
        elif num_inference_steps != len(TIMESTEPS):
            raise ValueError(f"num_inference_steps is {num_inference_steps!r:.60}; it must be 2, or pass timesteps")
        elif self.num_train_timesteps <= TIMESTEPS[0]:
            raise ValueError(f"num_train_timesteps is {self.num_train_timesteps}; the two steps begin at "
                             f"{TIMESTEPS[0]}, so it must be above that, or pass timesteps")
        else:
            t = np.array(TIMESTEPS, np.float64)
        alpha2 = _signal(self)[t.astype(int)]
        alpha, sigma = np.sqrt(alpha2), np.sqrt(1 - alpha2)
        grid = Grid(t, alpha, sigma, np.append(alpha[1:], 1.0), np.append(sigma[1:], 0.0))
        return self._tabulate(solvers.consistency(), grid, start_std=sigma)

    def _reads(self, alpha: Any, sigma: Any) -> tuple[Pair, Pair]:
        ratio, data = sigma / alpha, self.sigma_data
        x, out = data**2 / (ratio**2 + data**2) / alpha, ratio * data / hypot(ratio, data)
        return (x, out), ((1 - alpha * x) / sigma, -alpha * out / sigma)

    def _c_in(self, alpha: Any, sigma: Any) -> Any:
        return 1 / hypot(sigma, alpha * self.sigma_data)

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(alpha, sigma) at training timesteps t, alpha^2 + sigma^2 = 1."""
        return levels_at(_signal(self), t)


@functools.lru_cache(maxsize=16)
def _signal(scheduler: ConsistencyDecoderScheduler) -> np.ndarray:
    """alpha^2 (T,) of the cosine schedule."""
    return noise.alphas_cumprod(noise.betas("squaredcos_cap_v2", scheduler.num_train_timesteps, 0.0, 0.0))
