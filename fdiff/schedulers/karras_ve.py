"""KarrasVeScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import solvers, spacing
from fdiff.plan import Grid, Pair, Plan
from fdiff.schedulers.exploding import Steps, cut, given_sigmas
from fdiff.schedulers.fields import AtLeastZero, Positive
from fdiff.schedulers.options import one_of
from fdiff.schedulers.scheduler import Scheduler


@dataclasses.dataclass(frozen=True, kw_only=True)
class KarrasVeScheduler(Scheduler):
    """Heun's method with churn for variance-exploding networks (Karras et al. 2022, algorithm 2).

    Order 2 (weak with churn), two network calls a step; stochastic. The fields are the Hub's. The plan has three rows a
    step, the first without a network call, and two for the last. The network is told sigma, after churn, and
    returns (x0 - x) / sigma; diffusers' pipeline made that of an EDM network F as sigma / 2 F((x + 1) / 2, sigma / 2).
    Levels fall evenly in log from sigma_max to sigma_min (Karras et al., table 1: VE); diffusers takes their
    squares for them.
    """

    sigma_min: Positive = 0.02
    sigma_max: Positive = 100.0
    s_noise: AtLeastZero = 1.007
    s_churn: AtLeastZero = 80.0
    s_min: AtLeastZero = 0.05
    s_max: AtLeastZero = 50.0

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        sigmas: Sequence[float] | None = None,
        strength: float = 1.0,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps.
            sigmas: the noise levels themselves, falling, with the one to reach at the end.
            strength: below 1, only that last part of the run (image to image).
        """
        if one_of(num_inference_steps=num_inference_steps, sigmas=sigmas) == "sigmas":
            levels = given_sigmas(sigmas)
        else:
            n = spacing.check_steps(num_inference_steps)
            levels = np.append(spacing.exponential(self.sigma_min, self.sigma_max, n), 0.0)
        gamma = min(self.s_churn / (len(levels) - 1), np.sqrt(2) - 1)
        rows = []
        for sigma, _, sigma_to in zip(*cut(Steps(levels[:-1], levels[:-1], levels[1:]), strength), strict=True):
            hat = sigma * (1 + gamma) if self.s_min <= sigma <= self.s_max else sigma
            rows += [(0.0, sigma, hat), (1.0, hat, sigma_to)] + [(1.0, sigma_to, sigma_to)] * bool(sigma_to)
        called, sigma, sigma_to = np.array(rows).T
        one = np.ones_like(sigma)
        told = np.where(called > 0, sigma, sigma_to)
        grid = Grid(told, one, sigma, one, sigma_to)
        plan = self._tabulate(solvers.karras_ve(self.s_noise), grid, called=called, start_std=sigma)
        return plan.drawing(called == 0)

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(1, sigma) where the network is told t = sigma: x = x0 + sigma eps."""
        sigma = jnp.asarray(t, jnp.float32)
        return jnp.ones_like(sigma), sigma

    def times(self, share: jax.Array) -> jax.Array:
        """Sigmas at these shares, evenly in log between those of a run."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** share

    def _reads(self, alpha: Any, sigma: Any) -> tuple[Pair, Pair]:
        return (1.0, sigma), (0.0, -1.0)  # the network predicts -eps
