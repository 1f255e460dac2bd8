"""FlowMatchEulerDiscreteScheduler."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from fdiff import solvers
from fdiff.plan import Plan, Solver
from fdiff.schedulers.exploding import Steps
from fdiff.schedulers.flow import ShiftedFlowScheduler, next_below


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowMatchEulerDiscreteScheduler(ShiftedFlowScheduler):
    """Euler's method on a flow (Lipman et al. 2023; Esser et al. 2024), order 1, one network call a step.

        x = x + (sigma_to - sigma) out,  x = (1 - sigma) x0 + sigma eps

    The fields are the Hub's. With stochastic_sampling each step jumps to x0 and noises it again. With both that and
    invert_sigmas diffusers mistakes the noise for x0; here x0 is x0.
    """

    stochastic_sampling: bool = False

    def _solver(self) -> Solver:
        return solvers.consistency() if self.stochastic_sampling else solvers.ddim()

    def _rows(self, solver: Solver, steps: Steps) -> Plan:
        return super()._rows(solver, steps).drawing(self.stochastic_sampling)

    def step_tokens(
        self, model_output: jax.Array, t: jax.Array, sample: jax.Array, plan: Plan, noise: jax.Array | None = None
    ) -> jax.Array:
        """One step by hand of tokens that are at levels of their own (LTX's conditioning), shaped like sample.

            x = x + (sigma_to - sigma) out,  sigma = t / T,  sigma_to = the highest level of the run below sigma, or 0

        So tokens at t = 0, which are known, stay. diffusers' per_token_timesteps takes the output negated.

        Args:
            model_output: (b, tokens, c) what the network made of sample.
            t: (b, tokens) the timestep of each token.
            sample: (b, tokens, c).
            plan: of the run.
            noise: (b, tokens, c) standard normal, which stochastic_sampling needs.

        Raises ValueError with invert_sigmas, or where noise is needed and not given.
        """
        if self.invert_sigmas:
            raise ValueError("step_tokens is for levels that fall, so not with invert_sigmas")
        sigma = jnp.asarray(t, jnp.float32)[..., None] / self.num_train_timesteps
        sigma_to = next_below(jnp.asarray(plan.sigma, jnp.float32), sigma, 1e-6)
        if not self.stochastic_sampling:
            return sample + (sigma_to - sigma) * model_output
        if noise is None:
            raise ValueError("stochastic_sampling draws noise: pass it to step_tokens")
        return (1 - sigma_to) * (sample - sigma * model_output) + sigma_to * noise
