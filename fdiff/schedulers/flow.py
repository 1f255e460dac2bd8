"""What the flow-matching schedulers share: x = (1 - sigma) x0 + sigma eps, and where a run visits sigma."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import spacing
from fdiff.plan import Grid, Pair, Plan, Solver, flow_prediction, tabulate
from fdiff.schedulers.exploding import Steps, cut, layout


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


def tabulate_flow(scheduler: Any, solver: Solver, steps: Steps) -> Plan:
    """The table over rows in x = (1 - sigma) x0 + sigma eps; every run starts from standard normal noise.

    With invert_sigmas the network is told (1 - sigma) T and predicts x0 - eps (Mochi).
    """
    inverted = getattr(scheduler, "invert_sigmas", False)
    t = (1 - steps.sigma) * scheduler.num_train_timesteps if inverted else steps.t
    grid = Grid(t, 1 - steps.sigma, steps.sigma, 1 - steps.sigma_to, steps.sigma_to)
    return tabulate(solver, grid, _inverted if inverted else flow_prediction, start_std=np.ones(len(t)))


def _inverted(alpha: float, sigma: float) -> tuple[Pair, Pair]:
    """The network predicts x0 - eps."""
    (x, out), (x_of_eps, out_of_eps) = flow_prediction(alpha, sigma)
    return (x, -out), (x_of_eps, -out_of_eps)


def flow_levels(scheduler: Any, t: Any) -> tuple[jax.Array, jax.Array]:
    """(1 - sigma, sigma) at timesteps t as the network is told them, sigma = t / T."""
    sigma = jnp.asarray(t, jnp.float32) / scheduler.num_train_timesteps
    return (sigma, 1 - sigma) if getattr(scheduler, "invert_sigmas", False) else (1 - sigma, sigma)


def flow_velocity(scheduler: Any, x0: jax.Array, noise: jax.Array) -> jax.Array:
    """The target of flow_prediction: noise - x0, the other way round with invert_sigmas."""
    return x0 - noise if getattr(scheduler, "invert_sigmas", False) else noise - x0


def next_below(levels: jax.Array, level: jax.Array, least: float = 1e-3) -> jax.Array:
    """The highest of a run's levels (n,) that lies below `level` by more than `least`, or 0; shaped like `level`."""
    return jnp.where(levels < level[..., None] - least, levels, 0.0).max(-1)


def dynamic_mu(scheduler: Any, image_seq_len: int) -> float:
    """mu, linear in the number of image tokens, from base_shift at the base length to max_shift at the largest."""
    slope = (scheduler.max_shift - scheduler.base_shift) / (scheduler.max_image_seq_len - scheduler.base_image_seq_len)
    return float(scheduler.base_shift + slope * (image_seq_len - scheduler.base_image_seq_len))
