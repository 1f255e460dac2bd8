"""ScoreSdeVpScheduler."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import solvers, spacing
from fdiff.plan import Grid, Pair, Plan, epsilon
from fdiff.schedulers.fields import AtLeastZero, Bounds, TrainTimesteps
from fdiff.schedulers.options import first_step
from fdiff.schedulers.scheduler import Scheduler


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreSdeVpScheduler(Scheduler):
    """Euler-Maruyama for the variance-preserving reverse SDE (Song et al. 2021b, eq. 6 and 11).

    Order 1 (weak), one network call a step; stochastic but for the last step, of which diffusers returns the mean
    beside the sample. The fields are the Hub's; num_train_timesteps is how many steps `step` by hand takes when it
    is not told. The network predicts noise and is told the time, from 1 to sampling_eps.
    """

    num_train_timesteps: TrainTimesteps = 2000
    beta_min: AtLeastZero = 0.1
    beta_max: AtLeastZero = 20.0
    sampling_eps: Annotated[float, Bounds(0, 1, open_low=True, least=1e-9)] = 1e-3

    def plan(self, num_inference_steps: int | None = None, *, strength: float = 1.0) -> Plan:
        """The table of a run of that many steps; strength below 1 keeps its last part (image to image)."""
        n = spacing.check_steps(num_inference_steps)
        t = np.linspace(1, self.sampling_eps, n)
        alpha, sigma = self._levels(np.append(t, 0.0))
        grid = Grid(t, alpha[:-1], sigma[:-1], alpha[1:], sigma[1:]).rows(first_step(n, strength))
        return self._tabulate(solvers.euler_maruyama(self._beta, 1 / n), grid).drawing()

    def _beta(self, t: float) -> float:
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def _levels(self, t: Any) -> tuple[Any, Any]:
        xp = np if isinstance(t, np.ndarray) else jnp
        log_alpha = -(t**2) / 4 * (self.beta_max - self.beta_min) - t / 2 * self.beta_min
        return xp.exp(log_alpha), xp.sqrt(-xp.expm1(2 * log_alpha))

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(alpha, sigma) at times t within 0 and 1, alpha^2 + sigma^2 = 1."""
        return self._levels(jnp.asarray(t, jnp.float32))

    def times(self, share: jax.Array) -> jax.Array:
        """Times at these shares, from sampling_eps to 1."""
        return self.sampling_eps + (1 - self.sampling_eps) * share

    def _reads(self, alpha: Any, sigma: Any) -> tuple[Pair, Pair]:
        return epsilon(alpha, sigma)
