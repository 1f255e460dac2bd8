"""FlowMatchLCMScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from fdiff import solvers
from fdiff.plan import Plan
from fdiff.schedulers.flow import dynamic_mu, flow_levels, flow_velocity, lay_flow, tabulate_flow
from fdiff.schedulers.scheduler import Scheduler


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowMatchLCMScheduler(Scheduler):
    """Consistency sampling on a flow (Song et al. 2023, algorithm 1): each step jumps to x0 and noises it again.

        x = (1 - sigma_to) x0 + sigma_to noise,  x0 = x - sigma out

    No order, one network call a step; stochastic but for the last step. The fields are the Hub's. scale_factors,
    which make x larger from step to step, are refused: a plan keeps the shape of x. With invert_sigmas diffusers
    mistakes the noise for x0; here x0 is x0.
    """

    num_train_timesteps: int = 1000
    shift: float = 1.0
    use_dynamic_shifting: bool = False
    base_shift: float = 0.5
    max_shift: float = 1.15
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096
    invert_sigmas: bool = False
    shift_terminal: float | None = None
    use_karras_sigmas: bool | None = False
    use_exponential_sigmas: bool | None = False
    use_beta_sigmas: bool | None = False
    time_shift_type: str = "exponential"
    scale_factors: tuple[float, ...] | None = None
    upscale_mode: str = "bicubic"

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
        strength: float = 1.0,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps.
            timesteps: what the network is told at each step, falling; without sigmas these are timesteps / T.
            sigmas: the noise levels themselves, falling from 1, without the 0 at the end; shifted like others.
            mu: how much the resolution shifts the run, see `mu`; needed with use_dynamic_shifting, else without effect.
            strength: below 1, only that last part of the run (image to image).
        """
        if self.scale_factors:
            raise ValueError("scale_factors change the shape of x during the run, which a plan cannot; "
                             "run a plan for each size and enlarge x0 between them")
        steps = lay_flow(self, num_inference_steps, timesteps, sigmas, mu, strength)
        return tabulate_flow(self, solvers.consistency(), steps)

    def mu(self, image_seq_len: int) -> float:
        """The shift's mu for an image of that many tokens: linear from base_shift to max_shift (FLUX)."""
        return dynamic_mu(self, image_seq_len)

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(1 - sigma, sigma) at timesteps t as the network is told them, sigma = t / num_train_timesteps."""
        return flow_levels(self, t)

    def velocity(self, x0: jax.Array, noise: jax.Array, t: Any) -> jax.Array:
        """noise - x0, the target of the network; x0 - noise with invert_sigmas."""
        return flow_velocity(self, x0, noise)
