"""HeliosDMDScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from fdiff import solvers, spacing
from fdiff.plan import Plan
from fdiff.schedulers.flow import flow_levels, flow_velocity, tabulate_flow
from fdiff.schedulers.scheduler import Scheduler
from fdiff.schedulers.stages import lay_stage, renoising


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeliosDMDScheduler(Scheduler):
    """HeliosScheduler's stages in a few steps of a distilled network: jump to x0, then mix the stage's first x back in.

        x = (1 - sigma_to) x0 + sigma_to first,  x0 = x - sigma out

    No order, since it follows no path; deterministic, one network call a step. The fields are the Hub's, of which
    prediction_type and use_flow_sigmas do nothing, as in diffusers. The doubled steps that Helios' pipeline takes for
    the first chunk of a film are twice the num_inference_steps here.
    """

    num_train_timesteps: int = 1000
    shift: float = 1.0
    stages: int = 3
    stage_range: tuple[float, ...] = (0, 1 / 3, 2 / 3, 1)
    gamma: float = 1 / 3
    prediction_type: str = "flow_prediction"
    use_flow_sigmas: bool = True
    use_dynamic_shifting: bool = False
    time_shift_type: str = "linear"

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        stage_index: int = 0,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> Plan:
        """The table of one stage's run.

        Args:
            num_inference_steps: how many steps.
            stage_index: which of the stages, from 0.
            sigmas: the levels of a scheduler of one stage, falling, and one more than the steps: the last is left out.
            mu: the resolution's shift, where use_dynamic_shifting is on.
        """
        levels = None if num_inference_steps is None else spacing.check_steps(num_inference_steps) + 1
        steps = lay_stage(self, levels, stage_index, sigmas, mu, keep_last=False)
        return tabulate_flow(self, solvers.one_noise(), steps)

    def renoising(self, stage_index: int) -> tuple[float, float]:
        """(a, b) for x = a x + b noise as that stage begins; noise as `fdiff.schedulers.stages.renoising` says."""
        return renoising(self, stage_index)

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(1 - sigma, sigma) of the whole flow at timesteps t, sigma = t / num_train_timesteps."""
        return flow_levels(self, t)

    def velocity(self, x0: jax.Array, noise: jax.Array, t: Any) -> jax.Array:
        """noise - x0, the target of the network."""
        return flow_velocity(self, x0, noise)
