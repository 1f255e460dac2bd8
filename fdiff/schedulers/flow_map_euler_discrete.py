"""FlowMapEulerDiscreteScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import sampling, solvers, spacing
from fdiff.plan import Plan
from fdiff.schedulers.fields import Flow
from fdiff.schedulers.flow import FlowScheduler, count_steps, given_levels, lay_flow, next_below


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowMapEulerDiscreteScheduler(Flow, FlowScheduler):
    """Steps of any length with a network that knows where each one ends (AnyFlow, Gu et al. 2026).

        x = x + (sigma_to - sigma) out,  out = network(x, t, r) the mean velocity from t to r, r = T sigma_to

    One network call a step; exact for a perfect flow map, and of order 1 for a network that takes no r. The fields are
    the Hub's. `adapt` makes a network of (x, t, r) one of (x, t), as runs take it:

        fdiff.sample(scheduler.adapt(network, plan), plan, x)
    """

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        strength: float = 1.0,
    ) -> Plan:
        """The table of a run, which ends at 0.

        Args:
            num_inference_steps: how many steps.
            timesteps: T times the noise levels, falling, before their shift.
            sigmas: the noise levels themselves, falling from 1, without the 0 at the end, before their shift.
            strength: below 1, only that last part of the run (image to image).
        """
        count_steps(num_inference_steps, timesteps, sigmas)
        if sigmas is not None and timesteps is not None:
            raise ValueError("sigmas and timesteps are both given; pass one of them")
        if sigmas is not None:
            laid = spacing.numbers("sigmas", sigmas)
        elif timesteps is not None:
            total = self.num_train_timesteps
            laid = given_levels("timesteps", timesteps, total) / total
        else:
            laid = np.linspace(1, 0, num_inference_steps or 0, endpoint=False)
        return self._rows(solvers.ddim(), lay_flow(self, None, sigmas=laid, strength=strength))

    def adapt(self, network: Callable[[jax.Array, jax.Array, jax.Array], jax.Array], plan: Plan) -> sampling.Network:
        """A network of (x, t, r) as one of (x, t): r is the timestep of the plan that comes below t, or 0."""
        return jax.tree_util.Partial(_to_the_next, sampling.as_partial(network), jnp.asarray(plan.t))


def _to_the_next(network: Callable[..., jax.Array], timesteps: jax.Array, x: jax.Array, t: jax.Array) -> jax.Array:
    return network(x, t, next_below(timesteps, t))
