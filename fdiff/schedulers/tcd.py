"""TCDScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fdiff import solvers
from fdiff.plan import Grid, Plan, unit_interval
from fdiff.schedulers.consistency import DistilledScheduler, distilled_timesteps, original_steps, strided_timesteps
from fdiff.schedulers.options import first_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class TCDScheduler(DistilledScheduler):
    """Trajectory consistency distillation (Zheng et al. 2024): jump along the path, then noise again.

    No order, one network call a step; stochastic where eta > 0, but for the last step. The run ends at the level of
    timestep 0. The fields are the Hub's; clip_sample, thresholding and their numbers, set_alpha_to_one, steps_offset,
    timestep_spacing and timestep_scaling have no effect, as in diffusers.
    """

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        original_inference_steps: int | None = None,
        strength: float = 1.0,
        trained_strength: float = 1.0,
        eta: float = 0.0,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps, at most original_inference_steps.
            timesteps: the timesteps themselves, falling, in place of their number.
            original_inference_steps: the most steps there may be, laid over all training timesteps; without it they
                are chosen from the field's steps of the distillation.
            strength: below 1, only that last part of the run (image to image), as Stable Diffusion's pipelines have it.
            trained_strength: below 1, the steps are laid over only that last part of the schedule, as in diffusers'
                LatentConsistencyModelImg2ImgPipeline.
            eta: how far below the next timestep each step jumps, 0 (deterministic) to 1 (to timestep 0). As in
                diffusers' pipelines it is 0; its step by hand takes 0.3, which the paper advises.
        """
        eta, share = unit_interval("eta", eta), unit_interval("trained_strength", trained_strength)
        original = original_steps(self, original_inference_steps)
        trained = np.arange(int(self.num_train_timesteps * share)) if original_inference_steps is not None \
            else strided_timesteps(self, original, share)
        t = distilled_timesteps(self, num_inference_steps, timesteps, trained, original)
        start, alpha2 = first_step(len(t), strength), self._signal()
        t, t_to = t[start:], np.append(t[1:], 0.0)[start:]
        below = np.floor(np.float32(1 - eta) * t_to.astype(np.float32))  # in float32, or another floor than diffusers'

        def level(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return np.sqrt(alpha2[t.astype(int)]), np.sqrt(1 - alpha2[t.astype(int)])

        return self._tabulate(solvers.tcd(*level(below)), Grid(t, *level(t), *level(t_to)))
