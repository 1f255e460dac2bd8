"""What the schedulers that run in x = x0 + sigma eps share: noise levels, the steps of a run, the table.

They serve variance-preserving checkpoints: sigma is the ratio of noise to signal, and the network sees
x / sqrt(1 + sigma^2). Levels are float64 throughout. diffusers takes 1 - alphas_cumprod in float32, which
moves its lowest sigmas by 3e-4 and the timesteps it derives from them by some thousandths.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import spacing
from fdiff.plan import PREDICTIONS, Grid, Pair, Plan, Solver
from fdiff.schedulers.fields import Betas, Positive, PredictionType, Spacing, check
from fdiff.schedulers.level import hypot
from fdiff.schedulers.options import clipping, first_step, given_timesteps, one_of
from fdiff.schedulers.scheduler import Scheduler
from fdiff.schedulers.timesteps import signal


class Steps(NamedTuple):
    """The steps of a run, (n,) in float64: at level sigma the network is told t, and x goes to sigma_to."""

    t: np.ndarray
    sigma: np.ndarray
    sigma_to: np.ndarray


@functools.lru_cache(maxsize=64)
def train_sigmas(scheduler: Any) -> np.ndarray:
    """sigma (T,) at each training timestep, rising; where the last is pure noise, that of alpha^2 = 2^-24.

    Raises ValueError for betas that add no noise to the first timestep, or leave no signal to the last.
    """
    alpha2 = signal(scheduler).copy()
    if getattr(scheduler, "rescale_betas_zero_snr", False):
        alpha2[-1] = 2.0**-24
    if not alpha2[0] < 1 or not alpha2[-1] > 1e-12:
        raise ValueError(f"the betas leave a share of {alpha2[0]:g} of signal at the first timestep and {alpha2[-1]:g} "
                         "at the last; this scheduler needs less than 1 and more than 1e-12, so correct beta_start, "
                         "beta_end or trained_betas")
    return np.sqrt((1 - alpha2) / alpha2)


def layout(scheduler: Any) -> str | None:
    """karras, exponential, beta or None, from the use_..._sigmas. Raises ValueError where two are on."""
    names = ("karras", "exponential", "beta")
    return spacing.one_layout(**{name: getattr(scheduler, f"use_{name}_sigmas", False) for name in names})


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExplodingScheduler(Spacing, Betas, Scheduler):
    """A scheduler in x = x0 + sigma eps of a variance-preserving network; no Hub class, but what those inherit."""

    prediction_type: PredictionType = "epsilon"

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        strength: float = 1.0,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps.
            timesteps: the timesteps themselves, falling, in place of their number.
            sigmas: the noise levels themselves, falling, with the one to reach at the end.
            strength: below 1, only that last part of the run (image to image).
        """
        return self._table(*self._solve(lay_steps(self, num_inference_steps, timesteps, sigmas, strength)))

    def _solve(self, steps: Steps) -> tuple[Solver, Steps]:
        """The solver of these steps, and its rows."""
        raise NotImplementedError

    def _table(self, solver: Solver, steps: Steps) -> Plan:
        """The table over rows; a run starts from noise of deviation sigma, or where timestep_spacing is leading
        sqrt(1 + sigma^2).
        """
        one, size = np.ones_like(steps.sigma), np.hypot(1, steps.sigma)
        start = size if self.timestep_spacing == "leading" else steps.sigma
        grid = Grid(steps.t, one, steps.sigma, one, steps.sigma_to)
        return self._tabulate(solver, grid, start_std=start, clip=clipping(self))

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(1, sigma) at training timesteps t: x = x0 + sigma eps.

        Between two of them as a run has it: linear in log sigma where it lays out sigmas, else in sigma.
        """
        train, named = train_sigmas(self), layout(self)
        values = jnp.asarray(np.log(train) if named else train, jnp.float32)
        sigma = jnp.interp(jnp.asarray(t, jnp.float32), jnp.arange(len(train)), values)
        sigma = jnp.exp(sigma) if named else sigma
        return jnp.ones_like(sigma), sigma

    def _reads(self, alpha: Any, sigma: Any) -> tuple[Pair, Pair]:
        if self.prediction_type == "original_sample":
            return PREDICTIONS["sample"](alpha, sigma)
        return super()._reads(alpha, sigma)

    def _c_in(self, alpha: Any, sigma: Any) -> Any:
        return 1 / hypot(1.0, sigma)


def lay_steps(
    scheduler: Any,
    num_inference_steps: int | None,
    timesteps: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
    strength: float = 1.0,
) -> Steps:
    """The steps of a run, from the scheduler's spacing and sigma options, or from the user's own levels.

    Given sigmas fall and end with the level to reach, so they are one more than the steps. `strength` below 1
    keeps only the last part. Raises ValueError for options that contradict each other.
    """
    given = one_of(num_inference_steps=num_inference_steps, timesteps=timesteps, sigmas=sigmas)
    named, train = layout(scheduler), train_sigmas(scheduler)
    if given == "sigmas":
        levels = given_sigmas(sigmas)
        t = spacing.interpolate_timesteps(levels[:-1], train)
    else:
        if given == "timesteps":
            if named:
                raise ValueError(f"timesteps contradict {named} sigmas, which choose their own; "
                                 f"switch use_{named}_sigmas off or pass num_inference_steps")
            t = given_timesteps(timesteps, len(train))
        else:
            t = spacing.timesteps(scheduler.timestep_spacing, len(train), num_inference_steps,
                                  offset=scheduler.steps_offset, between=True)
        levels = _interpolate(scheduler, t, train)
        if named:
            levels = spacing.lay_out(named, levels, len(t), *ends(scheduler))
            t = spacing.interpolate_timesteps(levels, train)
        spacing.check_falls(levels)
        levels = np.append(levels, final_sigma(scheduler, train[0]))[: len(t) + 1]
    return cut(Steps(t, levels[:-1], levels[1:]), strength)


def _interpolate(scheduler: Any, t: np.ndarray, train: np.ndarray) -> np.ndarray:
    """sigma at timesteps t; by interpolation_type log_linear n + 1 levels even in log, the last to reach."""
    kind = getattr(scheduler, "interpolation_type", "linear")
    if kind == "log_linear":
        return spacing.exponential(train[0], train[-1], len(t) + 1)
    if kind != "linear":
        raise ValueError(f"interpolation_type is {kind!r}; it can be linear or log_linear")
    return np.interp(t, np.arange(len(train)), train)


def ends(scheduler: Any) -> tuple[float | None, float | None]:
    """(sigma_min, sigma_max) to lay sigmas between, also those that another scheduler's config left here."""
    options = {**dict(scheduler.others), **dataclasses.asdict(scheduler)}
    low, high = (check(name, options.get(name), Positive | None) for name in ("sigma_min", "sigma_max"))
    return low, high


def final_sigma(scheduler: Any, sigma_min: float) -> float:
    """The level of the finished x: 0, or sigma_min where final_sigmas_type says so."""
    kind = getattr(scheduler, "final_sigmas_type", "zero")
    if kind not in ("zero", "sigma_min"):
        raise ValueError(f"final_sigmas_type is {kind!r}; it can be zero or sigma_min")
    return 0.0 if kind == "zero" else float(sigma_min)


def cut(steps: Steps, strength: float) -> Steps:
    """The last part of the steps, as image-to-image of that strength runs them."""
    start = first_step(len(steps.t), strength)
    return Steps(*(column[start:] for column in steps))


def given_sigmas(sigmas: Sequence[float] | np.ndarray | None) -> np.ndarray:
    """A user's own sigmas (n + 1,), as float64. Raises ValueError unless they fall to 0 or above."""
    levels = spacing.numbers("sigmas", sigmas)
    if len(levels) < 2:
        raise ValueError("sigmas must be a list of two numbers or more: "
                         "every level visited, then the one to reach")
    if not spacing.falls(levels) or levels[-1] < 0:
        raise ValueError("sigmas must fall from each to the next and end at 0 or above")
    return levels


def halve(steps: Steps, sigma_between: np.ndarray, t_between: np.ndarray) -> Steps:
    """Two rows a step, with a network call at (t_between, sigma_between) too; one for a step to sigma 0."""
    rows = []
    for t, sigma, sigma_to, between, told in zip(*steps, sigma_between, t_between, strict=True):
        rows += [(t, sigma, between), (told, between, sigma_to)] if sigma_to > 0 else [(t, sigma, sigma_to)]
    return Steps(*np.array(rows).T)
