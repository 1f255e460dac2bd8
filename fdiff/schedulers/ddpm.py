"""DDPMScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fdiff import solvers
from fdiff.plan import Grid, Plan
from fdiff.schedulers.fields import Clipping, Spacing, Thresholding
from fdiff.schedulers.options import clipping, first_step
from fdiff.schedulers.timesteps import TimestepScheduler, chain, spaced_or_given
from fdiff.solvers.ddpm import forward_std, posterior_std

FIXED = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log")
LEARNED = ("learned", "learned_range")
SMALLEST = 1e-20  # a variance, so that its logarithm is finite where the run ends at a clean x


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDPMScheduler(Clipping, Thresholding, Spacing, TimestepScheduler):
    """DDPM (Ho et al. 2020, eq. 6 and 7), order 1, stochastic, one network call a step.

    The fields are the Hub's. variance_type: fixed_small is the posterior's variance, fixed_large the forward
    process's beta; the `_log` kinds are the same numbers (diffusers takes the root of a logarithm for
    fixed_large_log and gives NaN); learned takes the variance from the second half of the network's channels,
    and learned_range (Nichol & Dhariwal 2021, eq. 15) interpolates with it between the logarithms of both. No
    noise is drawn at timestep 0.
    """

    variance_type: str = "fixed_small"
    timestep_spacing: str = "leading"
    rescale_betas_zero_snr: bool = False

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        strength: float = 1.0,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps, at most num_train_timesteps.
            timesteps: the timesteps themselves, falling, in place of their number.
            strength: below 1, only that last part of the run (image to image).
        """
        t = spaced_or_given(self, num_inference_steps, timesteps)
        grid = chain(t, self._signal()[t.astype(int)], 1.0).rows(first_step(len(t), strength))
        std, variance_of = variances(self.variance_type, grid)
        return self._tabulate(solvers.ddpm(std), grid, clip=clipping(self), variance_of=variance_of).drawing(grid.t > 0)


def variances(variance_type: str, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The noise's deviation in each row (n,), and the plan's variance_of (n, 3), relative to its square.

    So a network that predicts no variance draws fixed_small noise. Raises ValueError for an unknown type.
    """
    if variance_type not in FIXED + LEARNED:
        raise ValueError(f"variance_type is {variance_type!r}; it can be one of {', '.join(FIXED + LEARNED)}")
    small, large = posterior_std(grid), forward_std(grid)
    variance_of = np.zeros((len(grid.t), 3))
    if variance_type.startswith("fixed_large"):
        return np.where(grid.t > 0, large, 0.0), variance_of
    if variance_type in LEARNED:
        small = np.maximum(small, np.sqrt(SMALLEST))
        if variance_type == "learned":
            variance_of[:] = np.stack([np.full_like(small, -1000.0), np.zeros_like(small), 1 / small**2], 1)
        else:
            half = np.log(np.maximum(large, np.sqrt(SMALLEST)) / small)
            variance_of[:] = np.stack([half, half, np.zeros_like(half)], 1)
    return np.where(grid.t > 0, small, 0.0), np.where(grid.t[:, None] > 0, variance_of, 0.0)
