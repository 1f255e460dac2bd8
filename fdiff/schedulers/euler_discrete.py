"""EulerDiscreteScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import solvers
from fdiff.plan import PREDICTIONS, Pair, Plan, v_prediction
from fdiff.schedulers.exploding import ExplodingScheduler, lay_steps, train_sigmas
from fdiff.schedulers.fields import Positive, SigmaLayouts
from fdiff.schedulers.options import churn, churned, length


@dataclasses.dataclass(frozen=True, kw_only=True)
class EulerDiscreteScheduler(SigmaLayouts, ExplodingScheduler):
    """Euler's method (Karras et al. 2022, algorithm 2), order 1, one network call a step.

    Stochastic with s_churn. The fields are the Hub's. timestep_type continuous with v_prediction tells the
    network log(sigma) / 4. interpolation_type log_linear spaces the sigmas evenly in log and stops at the
    lowest one.
    """

    interpolation_type: str = "linear"
    sigma_min: Positive | None = None
    sigma_max: Positive | None = None
    timestep_type: str = "discrete"
    rescale_betas_zero_snr: bool = False
    final_sigmas_type: str = "zero"

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        strength: float = 1.0,
        s_churn: float = 0.0,
        s_tmin: float = 0.0,
        s_tmax: float = np.inf,
        s_noise: float = 1.0,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps.
            timesteps: the timesteps themselves, falling, in place of their number.
            sigmas: the noise levels themselves, falling, with the one to reach at the end.
            strength: below 1, only that last part of the run (image to image).
            s_churn: noise added over the whole run, as a multiple of the level; 0 for none.
            s_tmin, s_tmax: the noise levels between which it is added.
            s_noise: its deviation.
        """
        if self._continuous() and timesteps is not None:
            raise ValueError("timesteps contradict timestep_type continuous; "
                             "pass sigmas or num_inference_steps")
        steps = lay_steps(self, num_inference_steps, timesteps, sigmas, strength)
        if self._continuous():
            steps = steps._replace(t=np.log(steps.sigma) / 4)
        whole = num_inference_steps or length(timesteps, sigmas) - (sigmas is not None)
        gamma = churn(whole, s_churn, s_tmin, s_tmax, s_noise)
        solver = solvers.euler(gamma, s_tmin, s_tmax, s_noise, x0_of=self._x0_of())
        return self._table(solver, steps).drawing(churned(steps.sigma, gamma, s_tmin, s_tmax))

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(1, sigma) at timesteps t as the network is told them: x = x0 + sigma eps."""
        if self._continuous():
            sigma = jnp.exp(4 * jnp.asarray(t, jnp.float32))
            return jnp.ones_like(sigma), sigma
        return super().levels(t)

    def times(self, share: jax.Array) -> jax.Array:
        """Training timesteps at these shares, or log(sigma) / 4 of them, as the network is told them."""
        t = super().times(share)
        return jnp.log(jnp.asarray(train_sigmas(self), jnp.float32)[t]) / 4 if self._continuous() else t

    def _continuous(self) -> bool:
        if self.timestep_type not in ("discrete", "continuous"):
            raise ValueError(f"timestep_type is {self.timestep_type!r}; it can be discrete or continuous")
        return self.timestep_type == "continuous" and self.prediction_type == "v_prediction"

    def _x0_of(self) -> Callable[[float, float], Pair]:
        """How churn reads x0 at the raised level; as in diffusers, v_prediction keeps the network's level."""
        if self.prediction_type == "v_prediction":
            return lambda sigma, hat: v_prediction(1.0, sigma)[0]
        kind = "epsilon" if self.prediction_type == "epsilon" else "sample"
        return lambda sigma, hat: PREDICTIONS[kind](1.0, hat)[0]
