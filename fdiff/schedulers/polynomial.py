"""PolynomialScheduler."""

from __future__ import annotations

import dataclasses
import functools
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import solvers, spacing
from fdiff.plan import Grid, Memory, Pair, Plan, Solver, epsilon
from fdiff.schedulers.fields import Bounds, Positive, TrainTimesteps
from fdiff.schedulers.options import first_step
from fdiff.schedulers.scheduler import Scheduler
from fdiff.schedulers.timesteps import preserving_grid

LEAST_RATIO = 1e-3  # of alpha^2 from one timestep to the next


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolynomialScheduler(Scheduler):
    """The noise of E(3) equivariant diffusion (Hoogeboom et al. 2022, appendix B), ancestral steps of order 1.

        alpha^2 = (1 - 2 s) (1 - (t / T)^power)^2 + s,  alpha^2 + sigma^2 = 1,  t = 0, ..., T

    One network call a step, and one more at the end, at t = 0, which takes x to x0 with noise of deviation
    sigma_0 / alpha_0. T is num_train_timesteps and s noise_precision; the ratio of two alpha^2 is kept above
    0.001. Times are told as t / T. No Hub class has this schedule.
    """

    num_train_timesteps: TrainTimesteps = 1000
    power: Positive = 2.0
    noise_precision: Annotated[float, Bounds(0, 0.1, open_low=True, least=1e-9)] = 1e-5

    def plan(
        self, num_inference_steps: int | None = None, *, strength: float = 1.0, resamplings: int = 1
    ) -> Plan:
        """The table of a run: num_inference_steps times `resamplings` network calls and one more.

        Args:
            num_inference_steps: how many steps, at most num_train_timesteps.
            strength: below 1, only that last part of the run.
            resamplings: how often each step is made; after all but the last time noise takes x back up, in a row
                without a network call, so that what is known and what is drawn grow together (Lugmayr et al. 2022).
        """
        n, most = spacing.check_steps(num_inference_steps), self.num_train_timesteps
        spacing.check_count("resamplings", resamplings, 1000)
        if n > most:
            raise ValueError(f"num_inference_steps is {n}; the model was trained with {most}, so ask for no more")
        t = np.round(np.linspace(most, 0, n + 1))[first_step(n, strength):]
        high, low = (np.repeat(one, 2 * resamplings - 1) for one in (t[:-1], t[1:]))
        up = np.tile(np.arange(2 * resamplings - 1) % 2 == 1, len(t) - 1)
        start, end = np.append(np.where(up, low, high), 0), np.append(np.where(up, high, low), -1)
        alpha2 = np.append(self._signal(), 1.0)  # the last is that of x0
        grid = preserving_grid(start / most, *(alpha2[at.astype(int)] for at in (start, end)))
        return self._tabulate(ancestral_and_back(), grid, called=1.0 - np.append(up, False))

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(alpha, sigma) at the nearest whole timesteps to t T, t within [0, 1]."""
        alpha2 = self._signal()
        at = jnp.round(jnp.asarray(t, jnp.float32) * self.num_train_timesteps).astype(jnp.int32)
        return jnp.asarray(np.sqrt(alpha2), jnp.float32)[at], jnp.asarray(np.sqrt(1 - alpha2), jnp.float32)[at]

    def times(self, share: jax.Array) -> jax.Array:
        """The whole timesteps 0 to T at these shares of the way from data to noise, over T."""
        most = self.num_train_timesteps
        return jnp.clip(jnp.ceil((most + 1) * share) - 1, 0, most) / most

    def _reads(self, alpha: Any, sigma: Any) -> tuple[Pair, Pair]:
        return epsilon(alpha, sigma)

    def _signal(self) -> np.ndarray:
        return polynomial_signal(self.num_train_timesteps, self.power, self.noise_precision)


def ancestral_and_back() -> Solver:
    """Steps down as `solvers.ddpm`, with noise of deviation sigma / alpha in one to x0, and up as `solvers.repaint`."""
    down, back = solvers.ddpm(), solvers.repaint()

    def step(i: int, grid: Grid, state: Memory, x0: Any, eps: Any, noise: Any) -> Memory:
        if grid.sigma_to[i] > grid.sigma[i]:
            return Memory(*back.step(i, grid, state, x0, eps, noise))
        if grid.sigma_to[i] == 0:
            return Memory(x0 + grid.sigma[i] / grid.alpha[i] * noise)
        return Memory(*down.step(i, grid, state, x0, eps, noise))

    return Solver(step, keeps_level=False)


@functools.lru_cache(maxsize=64)
def polynomial_signal(num_train_timesteps: int, power: float, noise_precision: float) -> np.ndarray:
    """alpha^2 (T + 1,) of the schedule, float64, from the least noise on."""
    alpha2 = (1 - np.linspace(0, 1, num_train_timesteps + 1) ** power) ** 2
    ratios = np.clip(alpha2 / np.append(1.0, alpha2[:-1]), LEAST_RATIO, 1.0)
    return (1 - 2 * noise_precision) * np.cumprod(ratios) + noise_precision
