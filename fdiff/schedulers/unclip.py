"""UnCLIPScheduler."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from fdiff import noise, solvers, spacing
from fdiff.plan import Plan
from fdiff.schedulers.ddpm import variances
from fdiff.schedulers.fields import Clipping, PredictionType, TrainTimesteps
from fdiff.schedulers.options import choose, clipping, first_step
from fdiff.schedulers.scheduler import Scheduler
from fdiff.schedulers.timesteps import chain, levels_at


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnCLIPScheduler(Clipping, Scheduler):
    """DDPM as unCLIP runs it (Ramesh et al. 2022): order 1, stochastic, one network call a step.

    The fields are the Hub's; the noise schedule is squaredcos_cap_v2. Timesteps run evenly from the last one to 0;
    a single step, which diffusers cannot take, is told the last. variance_type as in DDPMScheduler. The float32 of
    diffusers loses up to 1e-3 of a sample to cancellation in 1 - alpha^2; here nothing cancels.
    """

    num_train_timesteps: TrainTimesteps = 1000
    variance_type: str = "fixed_small_log"
    prediction_type: PredictionType = "epsilon"
    beta_schedule: str = "squaredcos_cap_v2"

    def plan(self, num_inference_steps: int | None = None, *, strength: float = 1.0) -> Plan:
        """The table of a run of that many steps; strength below 1 keeps its last part (image to image)."""
        variance_type = choose("variance_type", self.variance_type, ("fixed_small_log", "learned_range"))
        choose("prediction_type", self.prediction_type, ("epsilon", "sample"))
        n, last = spacing.check_steps(num_inference_steps, self.num_train_timesteps), self.num_train_timesteps - 1
        t = np.round(np.arange(n) * (last / (n - 1)))[::-1] if n > 1 else np.array([float(last)])
        grid = chain(t, self._signal()[t.astype(int)], 1.0).rows(first_step(n, strength))
        std, variance_of = variances(variance_type, grid)
        return self._tabulate(solvers.ddpm(std), grid, clip=clipping(self), variance_of=variance_of).drawing(grid.t > 0)

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(alpha, sigma) at training timesteps t, alpha^2 + sigma^2 = 1."""
        return levels_at(self._signal(), t)

    def _signal(self) -> np.ndarray:
        kind = choose("beta_schedule", self.beta_schedule, ("squaredcos_cap_v2",))
        return noise.alphas_cumprod(noise.betas(kind, self.num_train_timesteps, 0.0, 0.0))
