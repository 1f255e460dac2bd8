"""DPMSolverSDEScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fdiff import solvers, spacing
from fdiff.plan import Plan
from fdiff.schedulers.exploding import ExplodingScheduler, halve, lay_steps, train_sigmas
from fdiff.schedulers.fields import AtLeastZero, LatentBetas, SigmaLayouts, check


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPMSolverSDEScheduler(SigmaLayouts, LatentBetas, ExplodingScheduler):
    """DPM-Solver++ for the SDE (Lu et al. 2022b; k-diffusion's dpmpp_sde), two network calls a step.

    Order 2 (weak); stochastic. The fields are the Hub's. The plan has two rows a step
    and one for the last. The noise of a step's two rows comes from one Brownian path, as torchsde's would;
    noise_sampler_seed has no effect, since a run draws from the key that it is given.
    """

    noise_sampler_seed: int | None = None

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        strength: float = 1.0,
        s_noise: float = 1.0,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps.
            timesteps: the timesteps themselves, falling, in place of their number.
            sigmas: the noise levels themselves, falling, with the one to reach at the end.
            strength: below 1, only that last part of the run (image to image).
            s_noise: deviation of the noise.
        """
        check("s_noise", s_noise, AtLeastZero)
        steps = lay_steps(self, num_inference_steps, timesteps, sigmas, strength)
        middle = np.sqrt(steps.sigma * steps.sigma_to)
        told = spacing.interpolate_timesteps(middle, train_sigmas(self))
        return self._table(solvers.dpm_sde(s_noise), halve(steps, middle, told))
