"""What the schedulers that step in log-SNR share: noise levels, the steps of a run, predictions.

They run in x = alpha x0 + sigma eps with alpha^2 + sigma^2 = 1, or alpha + sigma = 1 for flow models, and lay
their levels out by the ratio sigma / alpha. Levels are float64; diffusers takes 1 - alphas_cumprod in float32,
which moves its lowest levels by 3e-4.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import noise, spacing
from fdiff.plan import Grid, Pair, Plan, Solver
from fdiff.schedulers.exploding import Steps, ends, final_sigma, train_sigmas
from fdiff.schedulers.fields import Betas, FlowSigmas, PredictionType, SigmaLayouts, Thresholding
from fdiff.schedulers.options import clipping, first_step, given_timesteps, one_of
from fdiff.schedulers.scheduler import Scheduler


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreservingScheduler(Thresholding, FlowSigmas, Betas, Scheduler):
    """A scheduler of variance-preserving levels or a flow's; no Hub class, but what those of this kind inherit."""

    prediction_type: PredictionType = "epsilon"

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(alpha, sigma) at training timesteps t; along a flow sigma is t / num_train_timesteps."""
        t = jnp.asarray(t, jnp.float32)
        if self.use_flow_sigmas:
            return 1 - t / self.num_train_timesteps, t / self.num_train_timesteps
        alpha, sigma = (jnp.asarray(level, jnp.float32) for level in levels_of(self, train_sigmas(self)))
        at = jnp.arange(len(alpha))
        return jnp.interp(t, at, alpha), jnp.interp(t, at, sigma)

    def times(self, share: jax.Array) -> jax.Array:
        """Training timesteps at these shares; along a flow from 1 on, at which x has noise, and below the last."""
        return jnp.maximum(super().times(share), int(self.use_flow_sigmas))

    def _reads(self, alpha: Any, sigma: Any) -> tuple[Pair, Pair]:
        return reading(self, alpha, sigma)

    def _rows(self, solver: Solver, steps: Steps, start: int = 0, stop: int | None = None) -> Plan:
        """The table over these of the steps; a run starts from noise of deviation 1."""
        stochastic = getattr(self, "algorithm_type", "").startswith("sde")
        return tabulate_steps(self, solver, steps, start, stop).drawing(stochastic)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogSnrScheduler(SigmaLayouts, PreservingScheduler):
    """One that steps in log-SNR, and lays sigmas out as its options say; no Hub class."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShiftedLogSnrScheduler(LogSnrScheduler):
    """One whose run the resolution may shift, and strength cut; no Hub class."""

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        mu: float | None = None,
        strength: float = 1.0,
    ) -> Plan:
        """The table of a run.

        Args:
            num_inference_steps: how many steps; of singlestep solvers, how many network calls.
            timesteps: the timesteps themselves, falling, in place of their number.
            mu: the resolution's shift of flow sigmas, where use_dynamic_shifting is on.
            strength: below 1, only that last part of the run (image to image), with a warm-up of its own.
        """
        steps = self._steps(num_inference_steps, timesteps, mu)
        n = len(steps.t)
        start = first_step(n, strength)
        return self._rows(self._solver(n, start), steps, start)

    def _steps(self, n: int | None, timesteps: Sequence[float] | None, mu: float | None) -> Steps:
        return lay_levels(self, n, timesteps, mu)

    def _solver(self, n: int, start: int) -> Solver:
        """The solver of the last rows, from `start`, of a run of n."""
        raise NotImplementedError


def tabulate_steps(scheduler: Any, solver: Solver, steps: Steps, start: int = 0, stop: int | None = None) -> Plan:
    """The table over these of the steps; a run starts from noise of deviation 1."""
    grid = Grid(steps.t, *levels_of(scheduler, steps.sigma), *levels_of(scheduler, steps.sigma_to)).rows(start, stop)
    return scheduler._tabulate(solver, grid, start_std=np.ones_like(grid.t), clip=clipping(scheduler))


def reading(scheduler: Any, alpha: Any, sigma: Any) -> tuple[Pair, Pair]:
    """(x0_of, eps_of) by prediction_type; along a flow v_prediction reads x0 = alpha x - sigma out, as in diffusers.

    Raises ValueError for flow_prediction without flow sigmas.
    """
    if scheduler.prediction_type == "flow_prediction" and not scheduler.use_flow_sigmas:
        raise ValueError("prediction_type flow_prediction needs use_flow_sigmas")
    if scheduler.prediction_type == "v_prediction" and scheduler.use_flow_sigmas:
        return (alpha, -sigma), (sigma, alpha)
    return Scheduler._reads(scheduler, alpha, sigma)


def lay_levels(
    scheduler: Any,
    num_inference_steps: int | None,
    timesteps: Sequence[float] | None = None,
    mu: float | None = None,
    *,
    repeat_last: bool = False,
    whole: bool = True,
) -> Steps:
    """The steps of a run, from the scheduler's spacing and sigma options, or from the user's own timesteps.

    sigma is sigma / alpha, or the flow's sigma. With final_sigmas_type sigma_min (or none), laid out sigmas end at
    the least level of training, or stay at their own last where `repeat_last`. The network is told timesteps
    without their fraction; `whole` rounds those of karras and lu sigmas first.

    Raises ValueError for options that contradict each other.
    """
    given = one_of(num_inference_steps=num_inference_steps, timesteps=timesteps)
    named, train = layout(scheduler), train_sigmas(scheduler)
    if given == "timesteps" and named:
        raise ValueError(f"timesteps contradict {named} sigmas, which choose their own; "
                         f"switch {option(named)} off or pass num_inference_steps")
    n = num_inference_steps or 0
    if named == "flow":
        spacing.check_steps(n)
        levels = spacing.shift_flow(even_flow(len(train), n), flow_shift(scheduler, mu))
        t = levels * len(train)
    elif mu is not None:
        raise ValueError("mu shifts flow sigmas; switch use_flow_sigmas on or leave mu out")
    elif named:
        levels, t = look_up(scheduler, named, n)
        t = np.round(t) if whole and named in ("karras", "lu") else t
    else:
        t = spaced(scheduler, n) if given != "timesteps" else given_timesteps(timesteps, len(train))
        levels = np.interp(t, np.arange(len(train)), train)
    end = levels[-1] if named and repeat_last else train[0]
    last = final_sigma(scheduler, end) if hasattr(scheduler, "final_sigmas_type") else end
    return Steps(np.trunc(t), levels, np.append(levels[1:], last))


def even_flow(num_train_timesteps: int, n: int) -> np.ndarray:
    """n even sigmas of a flow, falling from 1 - 1 / num_train_timesteps to above 0; in the order of diffusers' sums,
    since the network is told sigma without its last digits.
    """
    return (1 - np.linspace(1, 1 / num_train_timesteps, n + 1))[:0:-1]


def look_up(scheduler: Any, named: str, n: int, rising: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """n sigmas by that layout, falling, or rising for an inversion, and their fractional timesteps.

    sigma_min and sigma_max, also those that another scheduler's config left here, go before those of training.
    """
    spacing.check_steps(n)
    table, order = rounded_sigmas(scheduler), 1 if rising else -1
    limits = ends(scheduler)[::-order]
    laid = np.exp(np.log(table).astype(np.float64)) if named == "lu" else table  # lu lays out the logarithms
    t = spacing.interpolate_timesteps(spacing.lay_out(named, laid[::order], n, *limits), table)
    levels = spacing.lay_out(named, train_sigmas(scheduler)[::order], n, *limits)
    spacing.check_falls(-order * levels)
    return levels, t


def layout(scheduler: Any) -> str | None:
    """karras, exponential, beta, lu, flow or None, by the options. Raises ValueError where two are on."""
    names = ("karras", "exponential", "beta", "lu", "flow")
    return spacing.one_layout(**{name: getattr(scheduler, option(name), False) for name in names})


def option(name: str) -> str:
    """The Hub's option that asks for this layout."""
    return "use_lu_lambdas" if name == "lu" else f"use_{name}_sigmas"


def spaced(scheduler: Any, n: int, rising: bool = False) -> np.ndarray:
    """n timesteps by timestep_spacing, of those that lambda_min_clipped leaves.

    Of n + 1 even ones the lowest is left out; the highest, and the others rise, if `rising`.
    """
    train = train_sigmas(scheduler)
    below = int(np.sum(-np.log(train) >= getattr(scheduler, "lambda_min_clipped", -np.inf)))
    kind, offset = getattr(scheduler, "timestep_spacing", "linspace"), getattr(scheduler, "steps_offset", 0)
    if rising and kind != "trailing":
        if n >= below:
            raise ValueError(f"num_inference_steps is {n}; an inversion has {below - 1} steps at most")
        return np.round(spacing.timesteps(kind, len(train), n + 1, offset=offset, below=below))[:0:-1]
    t = np.round(spacing.timesteps(kind, len(train), n, offset=offset, fence=True, below=below))
    return t[::-1] if rising else t


def flow_shift(scheduler: Any, mu: float | None) -> float:
    """The shift of flow sigmas: flow_shift, or that of the resolution's mu. Raises ValueError where mu has no place."""
    if mu is None:
        return scheduler.flow_shift
    if not getattr(scheduler, "use_dynamic_shifting", False) or scheduler.time_shift_type != "exponential":
        raise ValueError("mu needs use_dynamic_shifting and time_shift_type exponential")
    return spacing.shift_of(mu)


def levels_of(scheduler: Any, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(alpha, sigma) of x at these sigmas."""
    if scheduler.use_flow_sigmas:
        return 1 - sigma, sigma
    alpha = 1 / np.hypot(1, sigma)
    return alpha, sigma * alpha


def lowered(order: int, n: int, lower_order_final: bool, euler_last: bool) -> list[int]:
    """The order of each of n steps: `order`, falling to 2 and 1 at the end of a short run, to 1 if euler_last."""
    orders = [order] * n
    if lower_order_final and n < 15:
        orders[-2:] = [min(order, 2), 1][-n:]
    if euler_last:
        orders[-1] = 1
    return orders


@functools.lru_cache(maxsize=64)
def rounded_sigmas(scheduler: Any) -> np.ndarray:
    """The sigmas of training, each operation rounded to float32 as in diffusers; only to look timesteps up in.

    As their fraction is cut off, which timestep is told may depend on such a rounding. torch's roots are not rounded
    correctly everywhere, which shows with rescale_betas_zero_snr: up to a tenth of the timesteps of laid out sigmas are
    one off from diffusers' there, and the first one by four with linear betas and use_lu_lambdas.
    """
    single, n, power = np.float32, scheduler.num_train_timesteps, {"linear": 1, "scaled_linear": 2}
    if scheduler.trained_betas is None and scheduler.beta_schedule in power:
        p = power[scheduler.beta_schedule]
        low, high = single(scheduler.beta_start ** (1 / p)), single(scheduler.beta_end ** (1 / p))
        stride, i = np.float64((high - low) / single(n - 1)), np.arange(n)
        betas = np.where(i < n // 2, low + stride * i, high - stride * (n - 1 - i)).astype(single) ** p
    else:
        betas = noise.betas(scheduler.beta_schedule, n, scheduler.beta_start, scheduler.beta_end,
                            scheduler.trained_betas).astype(single)
    alpha2 = np.cumprod(single(1) - betas, dtype=np.float64).astype(single)
    if getattr(scheduler, "rescale_betas_zero_snr", False):
        root = np.sqrt(alpha2)
        squared = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2
        steps = single(1) - (single(1) - np.append(squared[0], squared[1:] / squared[:-1]))
        alpha2 = np.cumprod(steps, dtype=np.float64).astype(single)
        alpha2[-1] = 2.0**-24
    return np.sqrt((single(1) - alpha2) / alpha2)
