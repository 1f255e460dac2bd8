"""ScoreSdeVeScheduler."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import keys, rows, sampling, solvers, spacing
from fdiff.plan import Grid, Pair, Plan
from fdiff.schedulers.fields import AtLeastZero, Bounds, Positive, Share, TrainTimesteps
from fdiff.schedulers.options import first_step
from fdiff.schedulers.scheduler import Scheduler


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreSdeVeScheduler(Scheduler):
    """Predictor and corrector for variance-exploding score networks (Song et al. 2021b, algorithms 2 and 4).

    Order 1 (weak), 1 + correct_steps network calls a step; stochastic. The fields are the Hub's. The network
    predicts the score, -eps / sigma, and is told sigma.

    The corrector's step size is a ratio of norms, which no table can hold: `plan` has the predictor alone, and
    `sample` is a loop of its own that does both. diffusers rounds t (n - 1) down in float32 and so skips or repeats
    a level here and there where n is large; here each is visited once.
    """

    num_train_timesteps: TrainTimesteps = 2000
    snr: AtLeastZero = 0.15
    sigma_min: Positive = 0.01
    sigma_max: Positive = 1348.0
    sampling_eps: Share = 1e-5
    correct_steps: Annotated[int, Bounds(0, 1000)] = 1

    def plan(self, num_inference_steps: int | None = None, *, strength: float = 1.0) -> Plan:
        """The table of the predictor's steps; strength below 1 keeps the last part of them (image to image)."""
        n = spacing.check_steps(num_inference_steps)
        sigma = spacing.exponential(self.sigma_min, self.sigma_max, n)
        t, one = np.linspace(1, self.sampling_eps, n), np.ones(n)
        told = self.sigma_min * (self.sigma_max / self.sigma_min) ** t
        grid = Grid(told, one, sigma, one, np.append(sigma[1:], 0.0)).rows(first_step(n, strength))
        return self._tabulate(solvers.reverse_diffusion(), grid, start_std=grid.sigma)

    def sample(
        self,
        network: sampling.Network,
        x: jax.Array,
        key: jax.Array | None = None,
        *,
        num_inference_steps: int = 2000,
        noise: jax.Array | None = None,
        strength: float = 1.0,
    ) -> jax.Array:
        """Run predictor and corrector and return the last x, shaped like the first.

        Each row first corrects: x = x + e score + sqrt(2 e) z with e = 2 (snr |z| / |score|)^2, norms averaged over
        the batch as in the paper's code, so that samples of one batch do touch each other there.

        Args:
            network: (x, sigma) -> score, see `fdiff.sample`.
            x: (b, ...) the first sample, of standard deviation sigma_max.
            key: a JAX key.
            num_inference_steps: how many steps.
            noise: (n, correct_steps + 1, *x.shape) standard normal draws in place of the key.
            strength: below 1, only that last part of the run.

        Raises ValueError where neither key nor noise is given.
        """
        if key is None and noise is None:
            raise ValueError("this scheduler draws noise: pass a key, as in scheduler.sample(network, x, "
                             "jax.random.key(0))")
        plan = self.plan(num_inference_steps, strength=strength)
        x = jnp.asarray(x, jnp.float32)
        network = rows.fitted(sampling.as_partial(network), plan)
        return _sample(network, plan, x, key, noise, self.snr, self.correct_steps)

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(1, sigma) at timesteps t from 0 to num_train_timesteps - 1, of which the network is told sigma."""
        sigma = self._told(jnp.asarray(t, jnp.float32))
        return jnp.ones_like(sigma), sigma

    def _told(self, t: Any) -> Any:
        ratio = math.log(self.sigma_max / self.sigma_min) / max(self.num_train_timesteps - 1, 1)
        return self.sigma_min * jnp.exp(ratio * t)

    def _reads(self, alpha: Any, sigma: Any) -> tuple[Pair, Pair]:
        return (1.0, sigma**2), (0.0, -sigma)  # the network predicts the score, -eps / sigma


@partial(jax.jit, static_argnums=6)
def _sample(
    network: sampling.Network,
    plan: Plan,
    x: jax.Array,
    key: jax.Array | None,
    noise: jax.Array | None,
    snr: float,
    correct_steps: int,
) -> jax.Array:
    def draw(row: jax.Array, k: int) -> jax.Array:
        if noise is not None or key is None:
            return jnp.asarray(noise, jnp.float32)[row, k]
        return keys.normal(keys.fold_in(keys.fold_in(key, row), k), x.shape)

    def norm(v: jax.Array) -> jax.Array:
        return jnp.linalg.norm(v.reshape(v.shape[0], -1), axis=1).mean()

    def body(state: sampling.State, row: Plan) -> tuple[sampling.State, None]:
        now, told = state.x, rows.at_row(network, state.done)
        for k in range(correct_steps):
            score, fresh = told(now, row.t).astype(jnp.float32), draw(state.done, k)
            size = 2 * (snr * norm(fresh) / norm(score)) ** 2
            now = now + size * score + jnp.sqrt(2 * size) * fresh
        state = state._replace(slots=now[None])
        return sampling.step(row, state, told(now, row.t), draw(state.done, correct_steps)), None

    return jax.lax.scan(body, sampling.init(plan, x), plan)[0].x
