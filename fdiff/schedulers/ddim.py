"""DDIMScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from fdiff import solvers
from fdiff.plan import Plan
from fdiff.schedulers.fields import Clipping, Spacing, Thresholding
from fdiff.schedulers.options import clipping, first_step
from fdiff.schedulers.timesteps import TimestepScheduler, strided


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDIMScheduler(Clipping, Thresholding, Spacing, TimestepScheduler):
    """DDIM (Song et al. 2021, eq. 12), order 1, one network call a step; stochastic where eta > 0.

    The fields are the Hub's. `set_alpha_to_one` ends at a clean x, otherwise at the level of timestep 0.
    """

    set_alpha_to_one: bool = True
    timestep_spacing: str = "leading"
    rescale_betas_zero_snr: bool = False

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        strength: float = 1.0,
        eta: float = 0.0,
        use_clipped_model_output: bool = False,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps, at most num_train_timesteps.
            timesteps: the timesteps themselves, falling, in place of their number.
            strength: below 1, only that last part of the run (image to image).
            eta: how much of an ancestral step's noise is drawn, 0 to 1.
            use_clipped_model_output: take eps anew from the clipped x0 (GLIDE).
        """
        grid = strided(self, self._signal(), num_inference_steps, timesteps)
        solver = solvers.ddim(eta, clipped_model_output=use_clipped_model_output)
        plan = self._tabulate(solver, grid.rows(first_step(len(grid.t), strength)), clip=clipping(self))
        return plan.drawing(eta > 0)
