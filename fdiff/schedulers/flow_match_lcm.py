"""FlowMatchLCMScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp

from fdiff import rows, sampling, solvers
from fdiff.plan import Plan, Solver
from fdiff.schedulers.exploding import Steps
from fdiff.schedulers.fields import Positive
from fdiff.schedulers.flow import ShiftedFlowScheduler
from fdiff.schedulers.options import first_step
from fdiff.schedulers.upscale import upscale


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowMatchLCMScheduler(ShiftedFlowScheduler):
    """Consistency sampling on a flow (Song et al. 2023, algorithm 1): each step jumps to x0 and noises it again.

        x = (1 - sigma_to) x0 + sigma_to noise,  x0 = x - sigma out

    No order, one network call a step; stochastic but for the last step. The fields are the Hub's. With invert_sigmas
    diffusers mistakes the noise for x0; here x0 is x0.

    scale_factors make x larger from step to step (scale-wise distillation, Starodubcev et al. 2025), which no table
    can hold: `plan` refuses them, and `sample` is a loop of its own.
    """

    scale_factors: tuple[Positive, ...] | None = None
    upscale_mode: str = "bicubic"

    def _solver(self) -> Solver:
        if self.scale_factors:
            raise ValueError("scale_factors change the shape of x during the run, which a plan cannot; "
                             "call scheduler.sample(network, x, key, num_inference_steps=...)")
        return solvers.consistency()

    def _rows(self, solver: Solver, steps: Steps) -> Plan:
        return super()._rows(solver, steps).drawing()

    def sample(
        self,
        network: sampling.Network,
        x: jax.Array,
        key: jax.Array | None = None,
        *,
        num_inference_steps: int | None = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
        strength: float = 1.0,
        noise: Sequence[jax.Array] | None = None,
    ) -> jax.Array:
        """Run all steps, x0 enlarged after step i to scale_factors[i] times the first size, and return the last x.

            x = (1 - sigma_to) upscale(x0) + sigma_to noise,  x0 = x - sigma out

        One compiled program, which calls the network at every size; without scale_factors, `fdiff.sample`.

        Args:
            network: (x, t) -> out, see `fdiff.sample`; x has another size at each call.
            x: (b, *spatial, c) the first sample, standard normal.
            key: a JAX key; or (b,) keys, one for each sample of the batch.
            num_inference_steps, timesteps, sigmas, mu: see `plan`; one step more than scale_factors.
            strength: below 1, only that last part of the run, with its scale_factors (image to image).
            noise: standard normal draws in place of the key, one a step, each shaped like x after that step.

        Raises ValueError where the steps are not one more than scale_factors, upscale_mode is not for x, or neither
        key nor noise is given.
        """
        same_size = dataclasses.replace(self, scale_factors=None)
        plan = same_size.plan(num_inference_steps, timesteps=timesteps, sigmas=sigmas, mu=mu)
        factors = (self.scale_factors if self.upscale_mode else None) or (1.0,) * (len(plan) - 1)
        if len(factors) != len(plan) - 1:
            raise ValueError(f"scale_factors has {len(factors)} numbers for {len(plan)} steps; "
                             "it must have one for each step but the last")
        start = first_step(len(plan), strength)
        plan, factors = plan[start:], factors[start:]
        if key is None and noise is None and len(plan) > 1:
            raise ValueError("this scheduler draws noise: pass a key, as in scheduler.sample(network, x, "
                             "jax.random.key(0), num_inference_steps=...)")
        sizes = tuple(tuple(round(factor * side) for side in x.shape[1:-1]) for factor in factors)
        x = jnp.asarray(x, jnp.float32)
        network = rows.fitted(sampling.as_partial(network), plan)
        return _sample(network, plan, x, key, noise, sizes, self.upscale_mode)


@partial(jax.jit, static_argnums=(5, 6))
def _sample(
    network: sampling.Network,
    plan: Plan,
    x: jax.Array,
    key: jax.Array | None,
    noise: Sequence[jax.Array] | None,
    sizes: tuple[tuple[int, ...], ...],
    mode: str,
) -> jax.Array:
    def clean(i: int, x: jax.Array) -> jax.Array:
        row = plan[i]
        return sampling.predict(row, x, rows.at_row(network, i)(row.c_in * x, row.t))[0]

    for i, size in enumerate(sizes):  # unrolled, since x has another shape in each step
        row, x0 = plan[i], clean(i, x)
        x0 = upscale(x0, size, mode) if size != x.shape[1:-1] else x0
        if noise is not None:
            fresh = jnp.asarray(noise[i])
        else:
            assert key is not None  # `sample` says so in a sentence
            fresh = sampling.draw(key, i, x0.shape)
        x = row.from_x0[0] * x0 + row.from_noise[0] * fresh
    return plan[len(sizes)].from_x0[0] * clean(len(sizes), x)
