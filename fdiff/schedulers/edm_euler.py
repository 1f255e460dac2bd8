"""EDMEulerScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fdiff import solvers
from fdiff.plan import Plan
from fdiff.schedulers.edm import EDMScheduler, lay_edm
from fdiff.schedulers.options import churn, churned, length


@dataclasses.dataclass(frozen=True, kw_only=True)
class EDMEulerScheduler(EDMScheduler):
    """Euler's method for EDM's preconditioned networks (Karras et al. 2022, algorithm 2 and table 1).

    Order 1, one network call a step; stochastic with s_churn. The fields are the Hub's; num_train_timesteps is how
    many steps `step` by hand takes when it is not told. The network is told log(sigma) / 4.
    """

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
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
            sigmas: the noise levels themselves, falling, with the one to reach at the end. (diffusers takes its
                sigmas for positions on the schedule, from 0 to 1.)
            strength: below 1, only that last part of the run (image to image).
            s_churn: noise added over the whole run, as a multiple of the level; 0 for none.
            s_tmin, s_tmax: the noise levels between which it is added.
            s_noise: its deviation.
        """
        steps = lay_edm(self, num_inference_steps, sigmas, strength)
        gamma = churn(num_inference_steps or length(sigmas) - 1, s_churn, s_tmin, s_tmax, s_noise)
        solver = solvers.euler(gamma, s_tmin, s_tmax, s_noise, x0_of=lambda sigma, hat: self._reads(1.0, hat)[0])
        return self._rows(solver, steps).drawing(churned(steps.sigma, gamma, s_tmin, s_tmax))
