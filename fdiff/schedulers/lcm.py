"""LCMScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fdiff import solvers
from fdiff.plan import Pair, Plan, unit_interval
from fdiff.schedulers.consistency import DistilledScheduler, distilled_timesteps, original_steps, strided_timesteps
from fdiff.schedulers.options import clipping, first_step
from fdiff.schedulers.timesteps import chain


@dataclasses.dataclass(frozen=True, kw_only=True)
class LCMScheduler(DistilledScheduler):
    """Latent consistency models (Luo et al. 2023, algorithm 3): each step jumps to x0 and noises it again.

        x = alpha_to (c_skip x + c_out x0) + sigma_to noise,  c_skip = d^2 / (s^2 + d^2),  c_out = s / sqrt(s^2 + d^2)

    with d = 0.5 and s = timestep_scaling t. No order, one network call a step; stochastic but for the last step.
    The fields are the Hub's; set_alpha_to_one, steps_offset and timestep_spacing have no effect, as in diffusers.
    """

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        original_inference_steps: int | None = None,
        strength: float = 1.0,
        trained_strength: float = 1.0,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps, at most original_inference_steps.
            timesteps: the timesteps themselves, falling, in place of their number.
            original_inference_steps: steps of the distillation, in place of the field.
            strength: below 1, only that last part of the run (image to image), as Stable Diffusion's pipelines have it.
            trained_strength: below 1, the steps are laid over only that last part of the schedule, as in diffusers'
                LatentConsistencyModelImg2ImgPipeline.
        """
        original = original_steps(self, original_inference_steps)
        trained = strided_timesteps(self, original, unit_interval("trained_strength", trained_strength))
        t = distilled_timesteps(self, num_inference_steps, timesteps, trained, original)
        grid = chain(t, self._signal()[t.astype(int)], 1.0).rows(first_step(len(t), strength))
        return self._tabulate(solvers.consistency(self._skip), grid, clip=clipping(self))

    def _skip(self, t: float) -> Pair:
        scaled = t * self.timestep_scaling
        return 0.25 / (scaled**2 + 0.25), scaled / np.hypot(scaled, 0.5)
