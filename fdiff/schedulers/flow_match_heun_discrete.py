"""FlowMatchHeunDiscreteScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fdiff import solvers
from fdiff.plan import Plan
from fdiff.schedulers.exploding import halve
from fdiff.schedulers.fields import Flow
from fdiff.schedulers.flow import FlowScheduler, lay_flow
from fdiff.schedulers.options import churn, churned, length


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowMatchHeunDiscreteScheduler(Flow, FlowScheduler):
    """Heun's method on a flow (Karras et al. 2022, algorithm 1; Lipman et al. 2023).

    Order 2, two network calls a step; stochastic with s_churn. The fields are the Hub's. The plan has two rows a
    step and one for the last. As in diffusers, churn does not scale x0 down as it raises the level, so that it is
    for noise levels far below 1.
    """

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
            timesteps: what the network is told at each step, falling; without sigmas these are timesteps / T.
            sigmas: the noise levels themselves, falling from 1, without the 0 at the end; shifted like others.
            strength: below 1, only that last part of the run (image to image).
            s_churn: noise added over the whole run, as a multiple of the level; 0 for none.
            s_tmin, s_tmax: the noise levels between which it is added.
            s_noise: its deviation.
        """
        steps = lay_flow(self, num_inference_steps, timesteps, sigmas, None, strength)
        whole = num_inference_steps or length(sigmas, timesteps)
        gamma = churn(2 * whole - 1, s_churn, s_tmin, s_tmax, s_noise)
        rows = halve(steps, steps.sigma_to, np.append(steps.t[1:], 0.0))
        begun = np.repeat(rows.sigma[::2], 2)[: len(rows.t)]  # diffusers draws in both rows, and drops the second
        plan = self._rows(solvers.heun(gamma, s_tmin, s_tmax, s_noise), rows)
        return plan.drawing(churned(begun, gamma, s_tmin, s_tmax))
