"""What the flow-matching schedulers share: x = (1 - sigma) x0 + sigma eps, and where a run visits sigma."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import spacing
from fdiff.plan import Grid, Pair, Plan, Solver, flow_prediction, reversed_output
from fdiff.schedulers.exploding import Steps, cut, layout
from fdiff.schedulers.fields import Bounds, Count, DynamicShift, Flow, Number, SigmaLayouts
from fdiff.schedulers.scheduler import Scheduler


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowScheduler(Scheduler):
    """A scheduler of a flow, which has num_train_timesteps; no Hub class, but what those of this kind inherit.

    With invert_sigmas the network is told (1 - sigma) T and predicts x0 - eps (Mochi).
    """

    def levels(self, t: Any) -> tuple[jax.Array, jax.Array]:
        """(1 - sigma, sigma) at times t as the network is told them: T sigma, or T (1 - sigma) with invert_sigmas."""
        share = jnp.asarray(t, jnp.float32) / total_of(self)
        return (share, 1 - share) if inverted(self) else (1 - share, share)

    def times(self, share: jax.Array) -> jax.Array:
        """Times, as the network is told them, where sigma is that share."""
        return total_of(self) * (1 - share if inverted(self) else share)

    def velocity(self, x0: jax.Array, noise: jax.Array, t: Any) -> jax.Array:
        """noise - x0, the target of the network; x0 - noise with invert_sigmas."""
        return x0 - noise if inverted(self) else noise - x0

    def _reads(self, alpha: Any, sigma: Any) -> tuple[Pair, Pair]:
        return (reversed_output(flow_prediction) if inverted(self) else flow_prediction)(alpha, sigma)

    def _rows(self, solver: Solver, steps: Steps) -> Plan:
        """The table over rows in x = (1 - sigma) x0 + sigma eps; every run starts from standard normal noise."""
        t = (1 - steps.sigma) * total_of(self) if inverted(self) else steps.t
        grid = Grid(t, 1 - steps.sigma, steps.sigma, 1 - steps.sigma_to, steps.sigma_to)
        return self._tabulate(solver, grid, start_std=np.ones(len(t)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShiftedFlowScheduler(SigmaLayouts, DynamicShift, Flow, FlowScheduler):
    """A flow whose run the resolution may shift (FLUX); no Hub class, but what those of this kind inherit."""

    base_shift: Number | None = 0.5
    max_shift: Number | None = 1.15
    base_image_seq_len: Count = 256
    max_image_seq_len: Count = 4096
    invert_sigmas: bool = False
    shift_terminal: Annotated[float, Bounds(0, 1, open_high=True)] | None = None

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
        return self._rows(self._solver(), lay_flow(self, num_inference_steps, timesteps, sigmas, mu, strength))

    def mu(self, image_seq_len: int) -> float:
        """The shift's mu for an image of that many tokens: linear from base_shift to max_shift (FLUX).

        Raises ValueError where there are no such shifts, or both are for one length.
        """
        low, high, base, most = self.base_shift, self.max_shift, self.base_image_seq_len, self.max_image_seq_len
        if low is None or high is None or base == most:
            raise ValueError("mu lies between base_shift at base_image_seq_len and max_shift at max_image_seq_len; "
                             "set both shifts, and two lengths that differ")
        return float(low + (high - low) / (most - base) * (image_seq_len - base))

    def _solver(self) -> Solver:
        raise NotImplementedError


def inverted(scheduler: Any) -> bool:
    """Whether time runs to the data."""
    return getattr(scheduler, "invert_sigmas", False)


def total_of(scheduler: Any) -> int:
    """T, what the network is told of sigma 1."""
    return scheduler.num_train_timesteps


def lay_flow(
    scheduler: Any,
    num_inference_steps: int | None,
    timesteps: Sequence[float] | None = None,
    sigmas: Sequence[float] | np.ndarray | None = None,
    mu: float | None = None,
    strength: float = 1.0,
) -> Steps:
    """The steps of a run: even in sigma, or the user's own, then shifted, stretched and laid out as configured.

    Given sigmas or timesteps are one a step, the last above 0. With both, the timesteps are what the network is
    told. As in diffusers, given sigmas are shifted too, and the even ones end at the shift of a shifted 1 / T.

    Raises ValueError for options that contradict each other or a missing mu.
    """
    n = count_steps(num_inference_steps, timesteps, sigmas)
    total = scheduler.num_train_timesteps
    dynamic = getattr(scheduler, "use_dynamic_shifting", False)
    if sigmas is not None:
        levels = given_levels("sigmas", sigmas, 1.0)
    elif timesteps is not None:
        levels = given_levels("timesteps", timesteps, total) / total
    else:
        lowest = 1 / total if dynamic else spacing.shift_flow(np.array([1 / total]), scheduler.shift)[0]
        levels = np.linspace(1.0, lowest, n)
    if not dynamic:
        levels = spacing.shift_flow(levels, scheduler.shift)
    elif mu is None:
        raise ValueError("use_dynamic_shifting needs mu, as FlowMatchEulerDiscreteScheduler.mu(image_seq_len) gives it")
    else:
        levels = spacing.shift_flow_by(levels, mu, scheduler.time_shift_type)
    if getattr(scheduler, "shift_terminal", None):
        levels = spacing.stretch_flow(levels, scheduler.shift_terminal)
    if len(levels) > 1 and not spacing.falls(levels):
        raise ValueError(f"num_train_timesteps {total} leaves no levels for {n} steps that fall; raise it")
    named = layout(scheduler)
    if named:
        levels = spacing.lay_out(named, levels, n)
    t = levels * total if timesteps is None else given_levels("timesteps", timesteps, total)
    return cut(Steps(t, levels, np.append(levels[1:], 0.0)), strength)


def count_steps(n: int | None, timesteps: Sequence[float] | None, sigmas: Sequence[float] | np.ndarray | None) -> int:
    """How many steps are asked for. Raises ValueError where nothing says so, or two options differ."""
    given = {"timesteps": timesteps, "sigmas": sigmas}
    counts = {name: len(spacing.numbers(name, values)) for name, values in given.items() if values is not None}
    if n is not None:
        spacing.check_steps(n)
        counts["num_inference_steps"] = n
    if not counts:
        raise ValueError("pass num_inference_steps, timesteps or sigmas")
    if len(set(counts.values())) > 1:
        raise ValueError(" and ".join(counts) + " ask for different numbers of steps; pass one of them")
    return next(iter(counts.values()))


def given_levels(name: str, values: Sequence[float] | np.ndarray | None, most: float) -> np.ndarray:
    """A user's own levels (n,), as float64. Raises ValueError unless they fall from `most` or less and stay above 0."""
    levels = spacing.numbers(name, values)
    if not spacing.falls(levels) or levels[-1] <= 0 or levels[0] > most:
        raise ValueError(f"{name} must fall from each to the next, from {most:g} at most and to above 0")
    return levels


def next_below(levels: jax.Array, level: jax.Array, least: float = 1e-3) -> jax.Array:
    """The highest of a run's levels (n,) that lies below `level` by more than `least`, or 0; shaped like `level`."""
    return jnp.where(levels < level[..., None] - least, levels, 0.0).max(-1)
