"""What a scheduler's options and a user's wishes come to, and the errors where they contradict each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from fdiff import spacing
from fdiff.plan import Pair, unit_interval
from fdiff.schedulers.fields import AtLeastZero, Bounds, check


def clipping(scheduler: Any) -> Pair:
    """The plan's clip (limit, quantile) from thresholding, clip_sample and their numbers."""
    if getattr(scheduler, "thresholding", False):
        return float(scheduler.sample_max_value), float(scheduler.dynamic_thresholding_ratio)
    return (float(scheduler.clip_sample_range) if getattr(scheduler, "clip_sample", False) else np.inf), 0.0


def first_step(n: int, strength: float) -> int:
    """The step at which image-to-image of that strength begins: the last int(n * strength) of n are run.

    Raises ValueError for a strength outside (0, 1] or one that leaves no step.
    """
    strength = unit_interval("strength", strength)
    kept = min(int(n * strength), n)
    if kept == 0:
        raise ValueError(f"strength {strength} leaves none of {n} steps; raise it above {1 / n:.3g}")
    return n - kept


def churn(n: int, s_churn: float, s_tmin: float, s_tmax: float, s_noise: float) -> float:
    """gamma, how much the level rises in each of n steps (Karras et al. 2022, algorithm 2).

    Raises ValueError for any of these that is no number, or negative.
    """
    check("s_tmin", s_tmin, AtLeastZero)
    check("s_tmax", s_tmax, Annotated[float, Bounds(0, np.inf)])
    check("s_noise", s_noise, AtLeastZero)
    return min(check("s_churn", s_churn, AtLeastZero) / n, np.sqrt(2) - 1)


def churned(sigma: np.ndarray, gamma: float, s_tmin: float, s_tmax: float) -> np.ndarray:
    """Which of these levels churn raises: there diffusers draws noise, also where s_noise is 0."""
    return (gamma > 0) & (s_tmin <= sigma) & (sigma <= s_tmax)


def given_timesteps(timesteps: Sequence[float] | np.ndarray | None, num_train_timesteps: int) -> np.ndarray:
    """A user's own timesteps, as float64. Raises ValueError unless they fall and lie in the trained range."""
    t = spacing.numbers("timesteps", timesteps)
    if not spacing.falls(t):
        raise ValueError("timesteps must fall from each to the next")
    if t[0] >= num_train_timesteps or t[-1] < 0:
        raise ValueError(f"timesteps must lie within 0 and {num_train_timesteps - 1}")
    return t


def one_of(**options: Any) -> str:
    """The name of the one option that is given. Raises ValueError for none or several."""
    names = [name for name, value in options.items() if value is not None]
    if len(names) != 1:
        found = f", not {' and '.join(names)}" if names else ""
        raise ValueError(f"pass exactly one of {', '.join(options)}{found}")
    return names[0]


def length(*lists: Sequence[float] | None) -> int:
    """How many numbers the first list has that is given, 0 if none is."""
    return next((len(numbers) for numbers in lists if numbers is not None), 0)


def require(name: str, value: Any, good: bool, wanted: str) -> None:
    """Raise ValueError, which says what the option of that name must be, unless it is good."""
    if not good:
        raise ValueError(f"{name} is {value}; it must be {wanted}")


def choose(name: str, value: str, choices: Sequence[str], others: Sequence[str] = ()) -> str:
    """The value if it is one of `choices`; their first if it is another scheduler's. Raises ValueError if neither."""
    if value in choices:
        return value
    if value in others:
        return choices[0]
    named = " or ".join([", ".join(choices[:-1]), choices[-1]] if len(choices) > 1 else choices)
    raise ValueError(f"{name} is {value!r}; it can be {named}")

