"""SCMScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import solvers, spacing
from fdiff.plan import Grid, Pair, Plan
from fdiff.schedulers.fields import Bounds, Positive, PredictionType, TrainTimesteps, check
from fdiff.schedulers.options import first_step
from fdiff.schedulers.scheduler import Scheduler

FIRST = 1.5708  # pi / 2, as the Hub rounds it
Angle = Annotated[float, Bounds(0, FIRST, open_low=True, least=1e-9)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SCMScheduler(Scheduler):
    """Continuous-time consistency models in TrigFlow (sCM, Lu & Song 2024): SANA-Sprint's sampler.

        x = cos(t) x0 + sin(t) sigma_data noise,  x0 = cos(t) x - sin(t) out

    No order, one network call a step; stochastic but for the last step. The fields are the Hub's. A run starts from
    noise of deviation sigma_data, by which diffusers' pipelines multiply theirs.
    """

    num_train_timesteps: TrainTimesteps = 1000
    prediction_type: PredictionType = "trigflow"
    sigma_data: Positive = 0.5

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        max_timesteps: float | None = None,
        intermediate_timesteps: float | None = None,
        strength: float = 1.0,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps, at most num_train_timesteps.
            timesteps: the angles visited, falling, with the one to reach at the end, in place of their number.
            max_timesteps: the first angle of an even run; pi / 2 (1.5708) if not given.
            intermediate_timesteps: the second angle of a run of two steps; 1.3 if not given.
            strength: below 1, only that last part of the run (image to image).
        """
        if self.prediction_type != "trigflow":
            raise ValueError(f"prediction_type is {self.prediction_type!r}; SCMScheduler has trigflow alone")
        if timesteps is not None:
            t = spacing.numbers("timesteps", timesteps)
            if max_timesteps is not None or intermediate_timesteps is not None:
                raise ValueError("timesteps contradict max_timesteps and intermediate_timesteps; pass either")
            if num_inference_steps not in (None, len(t) - 1):
                raise ValueError(f"timesteps are {len(t)} angles, which make {len(t) - 1} steps, "
                                 f"not {num_inference_steps}")
            if not spacing.falls(t) or len(t) < 2 or t[0] > FIRST or t[-1] < 0:
                raise ValueError("timesteps must be two angles or more, falling from pi / 2 at most to 0 or above")
        else:
            n = spacing.check_steps(num_inference_steps, self.num_train_timesteps)
            if intermediate_timesteps is not None and n != 2:
                raise ValueError(f"intermediate_timesteps is for num_inference_steps 2, not {n}")
            first = FIRST if max_timesteps is None else check("max_timesteps", max_timesteps, Angle)
            middle = check("intermediate_timesteps", 1.3 if intermediate_timesteps is None else intermediate_timesteps,
                           Angle)
            if n == 2 and middle >= first:
                raise ValueError(f"intermediate_timesteps is {middle:g}; it must be below the first angle, {first:g}")
            t = np.array([first, middle, 0.0]) if n == 2 else np.linspace(first, 0, n + 1)
        alpha, sigma = np.cos(t), np.sin(t) * self.sigma_data
        grid = Grid(t[:-1], alpha[:-1], sigma[:-1], alpha[1:], sigma[1:])
        rows = grid.rows(first_step(len(t) - 1, strength))
        start = np.full(len(rows.t), self.sigma_data)
        return self._tabulate(solvers.consistency(), rows, start_std=start).drawing()

    def _reads(self, alpha: Any, sigma: Any) -> tuple[Pair, Pair]:
        sine = sigma / self.sigma_data
        return (alpha, -sine), (sine / self.sigma_data, alpha / self.sigma_data)

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(cos t, sigma_data sin t) at angles t."""
        t = jnp.asarray(t, jnp.float32)
        return jnp.cos(t), self.sigma_data * jnp.sin(t)

    def times(self, share: jax.Array) -> jax.Array:
        """Angles at these shares of a right angle."""
        return FIRST * share

    def velocity(self, x0: jax.Array, noise: jax.Array, t: Any) -> jax.Array:
        """cos(t) sigma_data noise - sin(t) x0, the target of the network."""
        return self.level(t).target(x0, noise)
