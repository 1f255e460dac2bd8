"""PiflowScheduler."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import sampling, solvers, spacing
from fdiff.plan import Plan
from fdiff.schedulers.exploding import Steps
from fdiff.schedulers.fields import Bounds, Count, Flow, Positive
from fdiff.schedulers.flow import FlowScheduler


@dataclasses.dataclass(frozen=True, kw_only=True)
class PiflowScheduler(Flow, FlowScheduler):
    """Few steps with a network that predicts a whole policy for each (pi-Flow, Chen et al. 2025; Kandinsky 6).

        x = x + (sigma_to - sigma) out,  out = sum_j w_j out_j

    The network gives n_grid velocities out_j, so n_grid times the channels of x. Each stands for an x0 at one of as
    many times between the step's end and its begin; Euler's method over small steps, with x0 linear between those
    times, comes to fixed weights w_j, which add up to 1. `adapt` applies them, of a plan that is not traced:

        fdiff.sample(scheduler.adapt(network, plan), plan, x)

    One network call a step; deterministic; of order 1 if all out_j are equal. The fields are the Hub's.
    """

    shift: Positive = 5.0
    n_grid: Annotated[int, Bounds(2, 1000)] = 10
    eps: Annotated[float, Bounds(1e-9, 1, open_high=True)] = 1e-6
    final_step_size_scale: Annotated[float, Bounds(0, 1, open_low=True)] = 0.5
    num_policy_substeps: Count = 128

    def plan(self, num_inference_steps: int | None = None) -> Plan:
        """The table of a run of that many steps, even before the shift but for the last, final_step_size_scale of one.
        """
        n = spacing.check_steps(num_inference_steps)
        even = 1 - np.arange(n) / (n - 1 + self.final_step_size_scale)
        sigma = spacing.shift_flow(np.append(even, self.eps), self.shift)
        return self._rows(solvers.ddim(), Steps(sigma[:-1] * self.num_train_timesteps, sigma[:-1], sigma[1:]))

    def adapt(self, network: Callable[[jax.Array, jax.Array], jax.Array], plan: Plan) -> sampling.Network:
        """A network of n_grid times the channels of x as one of x's, by the weights of the plan's steps.

        The channels are those of the first velocity (the step's end), of the second, and so on.
        """
        rows = plan[plan.c_in != 0]  # those that padding added make no call
        levels = np.append(rows.sigma.astype(np.float64), spacing.shift_flow(np.array([self.eps]), self.shift))
        even = levels / (self.shift + (1 - self.shift) * levels)  # the shift undone
        weights = np.stack([self._weights(*ends) for ends in itertools.pairwise(even)])
        told = jnp.asarray(rows.t)
        return jax.tree_util.Partial(_weigh, sampling.as_partial(network), told, jnp.asarray(weights, jnp.float32))

    def _weights(self, begin: float, end: float) -> np.ndarray:
        """w (n_grid,) of the step between these times before the shift."""
        count = max(round((begin - end) * self.num_policy_substeps), 1)
        times = np.maximum(begin - np.arange(count + 1) * (begin - end) / count, 0)
        sigma = spacing.shift_flow(times, self.shift)
        place = np.clip((times - end) / max(begin - end, self.eps), 0, 1) * (self.n_grid - 1)
        of_x0 = np.zeros(self.n_grid)  # how x after the substeps so far depends on each x0
        for i, share in enumerate(np.diff(sigma) / np.maximum(sigma[:-1], self.eps)):
            hat = np.maximum(1 - np.abs(place[i] - np.arange(self.n_grid)), 0)
            of_x0 = (1 + share) * of_x0 - share * hat
        return of_x0 / of_x0.sum()


def _weigh(network: sampling.Network, told: jax.Array, weights: jax.Array, x: jax.Array, t: jax.Array) -> jax.Array:
    out = network(x, t)
    if out.shape != (*x.shape[:-1], weights.shape[1] * x.shape[-1]):
        raise ValueError(f"the network returned shape {out.shape} for a sample of shape {x.shape}; "
                         f"it must have n_grid = {weights.shape[1]} times its channels")
    out = out.reshape(*x.shape[:-1], weights.shape[1], x.shape[-1])
    return jnp.einsum("...jc,j->...c", out, weights[jnp.argmin(jnp.abs(told - t))].astype(out.dtype))
