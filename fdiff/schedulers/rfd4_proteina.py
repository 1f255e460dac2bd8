"""RFD4ProteinaScheduler."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

import numpy as np

from fdiff import solvers, spacing
from fdiff.messages import show
from fdiff.plan import Plan
from fdiff.schedulers.exploding import Steps
from fdiff.schedulers.fields import Bounds, Positive, Share
from fdiff.schedulers.flow import FlowScheduler
from fdiff.schedulers.options import choose, require

LOWEST = 1e-3  # the first time: at 0 the score has no value


@dataclasses.dataclass(frozen=True, kw_only=True)
class RFD4ProteinaScheduler(FlowScheduler):
    """Euler-Maruyama on a protein flow whose time t = 1 - sigma runs to the data, at a lower temperature (Proteina).

        x = x + ((x - r eps) / t - g r eps / (1 - t)) dt + sqrt(2 g dt) noise
        r = (snr tsr_sigma^2 + 1) / (snr tsr_sigma^2 / tsr_k + 1),  snr = t^2 / (1 - t)^2

    g is 1 / (t + 0.01), or by noise_mode tan (pi / 2) tan((1 - t) pi / 2) with 0.01 added to the cosine, over r^2; 0
    above t_lim_ode and below t_lim_ode_below. Order 1 (weak, where tsr_k is 1: no rescaling), stochastic, one network
    call a step. The fields are the Hub's, where the first four have no default. Tokens that are known, and padding,
    are kept by `after` of `fdiff.sample`.
    """

    num_train_timesteps: ClassVar[int] = 1
    invert_sigmas: ClassVar[bool] = True

    schedule_mode: str = "log"
    noise_mode: str = "1/t"
    tsr_k: Positive = 1.0
    tsr_sigma: Positive = 1.0
    tail_steps: Annotated[int, Bounds(0, spacing.MOST_STEPS)] = 10
    tail_step_multiplier: Annotated[int, Bounds(0, spacing.MOST_STEPS)] = 2
    t_lim_ode: Share = 0.95
    t_lim_ode_below: Share = 0.02

    def plan(self, num_inference_steps: int | None = None, *, start_time: float | None = None) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps; at least tail_steps * tail_step_multiplier.
            start_time: begin at about this t in [0, 1), from an x that was noised to there (partial diffusion).

        Raises ValueError for options out of their range.
        """
        n = spacing.check_steps(num_inference_steps)
        if start_time is None:
            times = self._times(n)
        elif not isinstance(start_time, int | float) or not 0 <= start_time < 1:
            raise ValueError(f"start_time is {show(start_time)}; it must lie within [0, 1)")
        else:  # a run as much longer as the whole of the times is than its part from start_time on
            dense = max(n * 100, 1000)
            above = int(np.sum(self._times(dense) >= start_time - 1e-6)) - 1
            times = self._times(round(n * dense / max(above, 1)))[-(n + 1):]
        t, sigma = times[:-1], 1 - times
        snr = t**2 / (1 - t) ** 2 * self.tsr_sigma**2
        ratio = (snr + 1) / (snr / self.tsr_k + 1)
        between = (t <= self.t_lim_ode) & (t >= self.t_lim_ode_below)
        solver = solvers.rescaled_score(ratio, np.where(between, self._noise_level(t) / ratio**2, 0.0))
        return self._rows(solver, Steps(t, sigma[:-1], sigma[1:]))

    def _times(self, n: int) -> np.ndarray:
        """n + 1 times from LOWEST to 1, of which the last tail_steps intervals are finer."""
        if not self.tail_steps:
            return self._spaced(n)
        finer = self.tail_step_multiplier
        require("tail_step_multiplier", finer, finer >= 2, "a whole number of 2 or more")
        even = n - (finer - 1) * self.tail_steps
        if even < self.tail_steps:
            raise ValueError(f"num_inference_steps is too low for tail_steps {self.tail_steps} and "
                             f"tail_step_multiplier {finer}; a whole run needs {self.tail_steps * finer}")
        fine, tail = self._spaced(even * finer), (even - self.tail_steps) * finer
        return np.concatenate([fine[:tail:finer], fine[tail:]])

    def _spaced(self, n: int) -> np.ndarray:
        """n + 1 times from LOWEST to 1: even in their root (power), or in the logarithm of 1 - t (log)."""
        if choose("schedule_mode", self.schedule_mode, ("log", "power")) == "power":
            return np.linspace(np.sqrt(LOWEST), 1, n + 1) ** 2
        times = 1 - np.logspace(-2, LOWEST, n + 1)[::-1]
        times = times - times[0] + LOWEST
        return times / times[-1]

    def _noise_level(self, t: np.ndarray) -> np.ndarray:
        """g at t, before the rescaling."""
        if choose("noise_mode", self.noise_mode, ("1/t", "tan")) == "1/t":
            return 1 / (t + 0.01)
        angle = (1 - t) * np.pi / 2
        return np.pi / 2 * np.sin(angle) / (np.cos(angle) + 0.01)
