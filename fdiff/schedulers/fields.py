"""The options that several schedulers share, each once: its name, its kind and range, and the default of most.

A scheduler inherits the groups that it has, and declares a field again only where its default is another. The groups
are bases of fields alone: no Hub class, no behaviour. `check` holds every field to its annotation.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Annotated, Any

import numpy as np

from fdiff import spacing
from fdiff.messages import show

BIGGEST = 1e6  # of a level, a shift or the like: larger ones drown x in float32


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Where a number lies: from `low` to `high`, those two left out with `open_low`, `open_high`; and what it is.

    A number that is not 0 is of size `least` or more, so that float32 can hold what is made of it.
    """

    low: float = -BIGGEST
    high: float = BIGGEST
    open_low: bool = False
    open_high: bool = False
    least: float = 0.0
    what: str = ""

    def hold(self, value: float) -> bool:
        """Whether the value lies there."""
        above = self.low < value if self.open_low else self.low <= value
        below = value < self.high if self.open_high else value <= self.high
        return above and below and (value == 0 or abs(value) >= self.least)

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.open_low else f"{self.low:g} or more"
        high = f"below {self.high:g}" if self.open_high else f"{self.high:.12g} at most"
        least = f", {self.least:g} or more" * bool(self.least and self.open_low)
        return f"{self.what}{low}{least} and {high}"


@dataclasses.dataclass(frozen=True)
class Choices:
    """The words that an option may be, at some scheduler or other."""

    words: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Instead:
    """What to do in place of setting an option that is null always."""

    cure: str


TrainTimesteps = Annotated[int, Bounds(1, spacing.MOST_TIMESTEPS, what="a whole number of ")]
Count = Annotated[int, Bounds(1, spacing.MOST_STEPS)]
Order = Annotated[int, Bounds(0, 10)]
Offset = Annotated[int, Bounds(0, spacing.MOST_TIMESTEPS)]
Positive = Annotated[float, Bounds(0, open_low=True, least=1e-9)]
AtLeastZero = Annotated[float, Bounds(0, least=1e-9)]
Number = Annotated[float, Bounds()]
Share = Annotated[float, Bounds(0, 1)]
Variance = Annotated[float, Bounds(0, 1, open_high=True)]
PredictionType = Annotated[
    str, Choices(("epsilon", "sample", "v_prediction", "flow_prediction", "original_sample", "trigflow"))
]
TimeShift = Annotated[str, Choices(("exponential", "linear"))]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Betas:
    """The noise schedule of the training (Ho et al. 2020)."""

    num_train_timesteps: TrainTimesteps = 1000
    beta_start: Variance = 0.0001
    beta_end: Variance = 0.02
    beta_schedule: str = "linear"
    trained_betas: tuple[Share, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentBetas(Betas):
    """Betas with the ends of latent diffusion (Rombach et al. 2022)."""

    beta_start: Variance = 0.00085
    beta_end: Variance = 0.012


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spacing:
    """Which of the training's timesteps a run visits (Lin et al. 2023, table 2)."""

    timestep_spacing: str = "linspace"
    steps_offset: Offset = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clipping:
    """Whether x0 is kept within a range."""

    clip_sample: bool = True
    clip_sample_range: Positive = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thresholding:
    """Whether x0 is divided by a quantile of itself (Saharia et al. 2022, section 2.3)."""

    thresholding: bool = False
    dynamic_thresholding_ratio: Annotated[float, Bounds(0, 1, open_low=True)] = 0.995
    sample_max_value: Annotated[float, Bounds(1)] = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class SigmaLayouts:
    """How the sigmas of a run are laid out, in place of spaced timesteps."""

    use_karras_sigmas: bool | None = False
    use_exponential_sigmas: bool | None = False
    use_beta_sigmas: bool | None = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowSigmas:
    """Whether x follows a flow, and the shift of its sigmas (Esser et al. 2024, eq. 23)."""

    use_flow_sigmas: bool = False
    flow_shift: Positive = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class DynamicShift:
    """Whether the resolution shifts a flow by its mu."""

    use_dynamic_shifting: bool = False
    time_shift_type: TimeShift = "exponential"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SolverOrder:
    """The kind of a multistep solver."""

    solver_order: Order = 2
    solver_type: str = "midpoint"
    lower_order_final: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogSnrEnds:
    """What the DPM solvers read of a network: how far its log-SNR is cut off, and that it predicts a variance too."""

    lambda_min_clipped: Annotated[float, Bounds(-np.inf, BIGGEST)] = -np.inf
    variance_type: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flow:
    """A flow's times, T = num_train_timesteps of them, and the shift of its sigmas."""

    num_train_timesteps: TrainTimesteps = 1000
    shift: Positive = 1.0


@functools.cache
def hints(cls: Any) -> dict[str, Any]:
    """The annotation of every field of a dataclass, with its range."""
    return typing.get_type_hints(cls, include_extras=True)


def frozen(value: Any) -> Any:
    """Lists and arrays as tuples, NumPy's and JAX's numbers as Python's, so that a scheduler is hashable."""
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        value = value.tolist()
    return tuple(frozen(one) for one in value) if isinstance(value, list | tuple) else value


def check(name: str, value: Any, hint: Any) -> Any:
    """The value, frozen, as the annotation has it. Raises ValueError where it is of another kind or out of range."""
    value = frozen(value)
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        kinds = typing.get_args(hint)
        if value is None and type(None) in kinds:
            return None
        hint = next(kind for kind in kinds if kind is not type(None))
    limit: Any = None
    if typing.get_origin(hint) is Annotated:
        hint, limit = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return _list(name, value, typing.get_args(hint)[0])
    if hint in (int, float):
        return _number(name, value, hint, limit or Bounds())
    if hint is bool and not isinstance(value, bool):
        raise ValueError(f"{name} is {show(value)}; it must be true or false")
    if hint is str and (not isinstance(value, str) or (limit and value not in limit.words)):
        wanted = f"it can be {', '.join(limit.words[:-1])} or {limit.words[-1]}" if limit else "it must be a word"
        raise ValueError(f"{name} is {show(value)}; {wanted}")
    if hint is type(None) and value is not None:
        raise ValueError(f"{name} is {show(value)}; leave it null, and {limit.cure}")
    return value


def _number(name: str, value: Any, kind: type, bounds: Bounds) -> float:
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    whole = "whole " * (kind is int)
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        raise ValueError(f"{name} is {show(value)}; it must be a {whole}number")
    if not bounds.hold(value):  # which nothing that is not a number does
        raise ValueError(f"{name} is {show(value)}; it must be {bounds}")
    return value


def _list(name: str, values: Any, hint: Any) -> tuple[Any, ...]:
    if not isinstance(values, tuple):
        raise ValueError(f"{name} is {show(values)}; it must be a list of numbers")
    if len(values) > spacing.MOST_TIMESTEPS:
        raise ValueError(f"{name} has {len(values)} numbers; it may have {spacing.MOST_TIMESTEPS}")
    return tuple(check(f"{name}[{i}]", one, hint) for i, one in enumerate(values))
