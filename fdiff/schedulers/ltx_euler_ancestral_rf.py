"""LTXEulerAncestralRFScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from fdiff import solvers
from fdiff.plan import Plan
from fdiff.schedulers.exploding import Steps, cut, given_sigmas
from fdiff.schedulers.fields import AtLeastZero, Share, TrainTimesteps
from fdiff.schedulers.flow import FlowScheduler, lay_flow
from fdiff.schedulers.flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from fdiff.schedulers.options import one_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class LTXEulerAncestralRFScheduler(FlowScheduler):
    """Euler's ancestral method on a flow, as ComfyUI runs LTX-Video; order 1, stochastic, one network call a step.

        down = sigma_to (1 + (sigma_to / sigma - 1) eta),  kept = (1 - sigma_to) down / (1 - down)
        x    = (1 - sigma_to) x0 + kept eps + s_noise sqrt(sigma_to^2 - kept^2) noise

    The fields are the Hub's. The levels are those of FlowMatchEulerDiscreteScheduler, whose options (shift and the
    others) a config may hold as well. eta lies within [0, 1]; 0 is deterministic. Without noise (s_noise 0) diffusers
    leaves out the factor (1 - sigma_to) / (1 - down) too, and so misses the level; here the formula stands.
    """

    num_train_timesteps: TrainTimesteps = 1000
    eta: Share = 1.0
    s_noise: AtLeastZero = 1.0

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
        strength: float = 1.0,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps.
            sigmas: the levels themselves, falling from 1 at most and ending with the one to reach, so one more than
                the steps; they are not shifted.
            mu: how much the resolution shifts the run, where the config has use_dynamic_shifting.
            strength: below 1, only that last part of the run (image to image).
        """
        if one_of(num_inference_steps=num_inference_steps, sigmas=sigmas) == "sigmas":
            levels = given_sigmas(sigmas)
            if levels[0] > 1:
                raise ValueError(f"sigmas begin at {levels[0]:g}; those of a flow are 1 at most")
            steps = cut(Steps(levels[:-1] * self.num_train_timesteps, levels[:-1], levels[1:]), strength)
        else:
            flow = FlowMatchEulerDiscreteScheduler.from_config(self)
            steps = lay_flow(flow, num_inference_steps, mu=mu, strength=strength)
        return self._rows(solvers.ancestral_flow(self.eta, self.s_noise), steps)
