"""RePaintScheduler, and the known part of the picture that it inpaints."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import sampling, solvers, spacing
from fdiff.plan import Pair, Plan, epsilon
from fdiff.schedulers.fields import Betas, Share
from fdiff.schedulers.options import clipping
from fdiff.schedulers.scheduler import Scheduler
from fdiff.schedulers.timesteps import levels_at, preserving_grid, signal


@dataclasses.dataclass(frozen=True, kw_only=True)
class RePaintScheduler(Betas, Scheduler):
    """RePaint (Lugmayr et al. 2022, algorithm 1): inpainting by a model that was not trained for it.

    Order 1, stochastic; of the rows those that go back up make no network call. The fields are the Hub's. Together
    with `keep_known`, which puts the known part back:

        plan = scheduler.plan(250)
        x = fdiff.sample(network, plan, x, key, after=keep_known(plan, known, mask, key))

    A row back up goes from the level that x has to that of the step before, exactly; diffusers takes the betas from
    a stride too high where a stride is longer than one timestep.
    """

    eta: Share = 0.0
    clip_sample: bool = True

    def plan(
        self, num_inference_steps: int | None = None, *, jump_length: int = 10, jump_n_sample: int = 10
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many levels to visit; more than num_train_timesteps count as that many.
            jump_length: how many steps a jump back up goes.
            jump_n_sample: how often each stretch of that length is run.
        """
        n = min(spacing.check_steps(num_inference_steps), self.num_train_timesteps)
        spacing.check_count("jump_length", jump_length, spacing.MOST_STEPS)
        spacing.check_count("jump_n_sample", jump_n_sample, 1000)
        if n * jump_n_sample > spacing.MOST_TIMESTEPS:
            raise ValueError(f"num_inference_steps {n} and jump_n_sample {jump_n_sample} make too long a run; "
                             "lower either")
        t = np.array(visits(n, jump_length, jump_n_sample))
        up = np.append(False, np.diff(t) > 0)
        start = np.where(up, np.append(0, t[:-1]) - 1, t)  # a jump starts below the step before it
        end = np.where(up, start + 1, t - 1)
        stride, alpha2 = self.num_train_timesteps // n, np.append(signal(self), 1.0)
        low, high = (alpha2[np.where(at < 0, -1, at * stride)] for at in (end, start))
        grid, called = preserving_grid(t * stride, high, low), np.where(up, 0.0, 1.0)
        plan = self._tabulate(solvers.repaint(self.eta), grid, called=called, clip=clipping(self))
        return plan.drawing(np.where(up, stride, 1))  # diffusers goes up timestep by timestep

    def _reads(self, alpha: Any, sigma: Any) -> tuple[Pair, Pair]:
        return epsilon(alpha, sigma)

    @property
    def clip_sample_range(self) -> float:
        """RePaint clips to [-1, 1]."""
        return 1.0

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(alpha, sigma) at training timesteps t, alpha^2 + sigma^2 = 1."""
        return levels_at(signal(self), t)


def visits(n: int, jump_length: int, jump_n_sample: int) -> list[int]:
    """The steps as they are visited, n - 1 first; one that is higher than that before it goes back up."""
    left = dict.fromkeys(range(0, n - jump_length, jump_length), jump_n_sample - 1)
    order, at = [], n
    while at >= 1:
        at -= 1
        order.append(at)
        if left.get(at, 0) > 0:
            left[at] -= 1
            order += range(at + 1, at + jump_length + 1)
            at += jump_length
    return order


def keep_known(
    plan: Plan,
    known: jax.Array,
    mask: jax.Array,
    key: jax.Array | None = None,
    *,
    noise: jax.Array | None = None,
) -> jax.tree_util.Partial:
    """What `sample` and `steps` take as `after` to keep a part of x at the known picture (RePaint, eq. 8).

        x = mask (alpha_to known + sigma_to noise) + (1 - mask) x      after each row with a network call

    Args:
        plan: of the run.
        known: (b, h, w, c) the picture, noiseless.
        mask: 1 where it is known and 0 where it is to be painted; of a shape that broadcasts to the picture's.
        key: the key of the run, so that a row adds the noise that it drew (as in diffusers).
        noise: (n, b, h, w, c) in place of the key, as given to the run.

    Raises ValueError where neither key nor noise is given.
    """
    if key is None and noise is None:
        raise ValueError("the known part needs noise: pass the key of the run, or its noise")
    calls = jnp.asarray(plan.c_in) != 0
    alpha, sigma = jnp.append(plan.alpha[1:], 1.0), jnp.append(plan.sigma[1:], 0.0)
    return jax.tree_util.Partial(_keep_known, calls, alpha, sigma, jnp.asarray(known), jnp.asarray(mask), key, noise)


def _keep_known(
    calls: jax.Array,
    alpha: jax.Array,
    sigma: jax.Array,
    known: jax.Array,
    mask: jax.Array,
    key: jax.Array | None,
    noise: jax.Array | None,
    x: jax.Array,
    i: jax.Array,
) -> jax.Array:
    fresh = sampling.draw(key, i, x.shape) if noise is None and key is not None else jnp.asarray(noise)[i]
    kept = mask * (alpha[i] * known + sigma[i] * fresh) + (1 - mask) * x
    return jnp.where(calls[i], kept, x)
