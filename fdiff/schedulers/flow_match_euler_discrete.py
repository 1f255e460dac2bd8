"""FlowMatchEulerDiscreteScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fdiff import solvers
from fdiff.plan import Plan
from fdiff.schedulers.flow import dynamic_mu, flow_levels, flow_velocity, lay_flow, next_below, tabulate_flow
from fdiff.schedulers.scheduler import Scheduler


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowMatchEulerDiscreteScheduler(Scheduler):
    """Euler's method on a flow (Lipman et al. 2023; Esser et al. 2024), order 1, one network call a step.

        x = x + (sigma_to - sigma) out,  x = (1 - sigma) x0 + sigma eps

    The fields are the Hub's. With stochastic_sampling each step jumps to x0 and noises it again. With both that and
    invert_sigmas diffusers mistakes the noise for x0; here x0 is x0.
    """

    num_train_timesteps: int = 1000
    shift: float = 1.0
    use_dynamic_shifting: bool = False
    base_shift: float | None = 0.5
    max_shift: float | None = 1.15
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096
    invert_sigmas: bool = False
    shift_terminal: float | None = None
    use_karras_sigmas: bool | None = False
    use_exponential_sigmas: bool | None = False
    use_beta_sigmas: bool | None = False
    time_shift_type: str = "exponential"
    stochastic_sampling: bool = False

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
        strength: float = 1.0,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps.
            timesteps: what the network is told at each step, falling; without sigmas these are timesteps / T.
            sigmas: the noise levels themselves, falling from 1, without the 0 at the end; shifted like others.
            mu: how much the resolution shifts the run, see `mu`; needed with use_dynamic_shifting, else without effect.
            strength: below 1, only that last part of the run (image to image).
        """
        steps = lay_flow(self, num_inference_steps, timesteps, sigmas, mu, strength)
        solver = solvers.consistency() if self.stochastic_sampling else solvers.ddim()
        return tabulate_flow(self, solver, steps)

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

    def mu(self, image_seq_len: int) -> float:
        """The shift's mu for an image of that many tokens: linear from base_shift to max_shift (FLUX)."""
        return dynamic_mu(self, image_seq_len)

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(1 - sigma, sigma) at timesteps t as the network is told them, sigma = t / num_train_timesteps."""
        return flow_levels(self, t)

    def velocity(self, x0: jax.Array, noise: jax.Array, t: Any) -> jax.Array:
        """noise - x0, the target of the network; x0 - noise with invert_sigmas."""
        return flow_velocity(self, x0, noise)
