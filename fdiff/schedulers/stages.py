"""What the Helios schedulers share: a flow cut into stages, each with sigmas of its own and x twice as large."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import numpy as np

from fdiff import spacing
from fdiff.messages import show
from fdiff.plan import Plan
from fdiff.schedulers.exploding import Steps
from fdiff.schedulers.fields import Bounds, DynamicShift, Flow, Positive, PredictionType, Share
from fdiff.schedulers.flow import FlowScheduler, given_levels

TOP = 0.999  # sigma at the begin of each of several stages


@dataclasses.dataclass(frozen=True, kw_only=True)
class StagedScheduler(DynamicShift, Flow, FlowScheduler):
    """A flow in stages; no Hub class, but what the two of Helios inherit."""

    stages: Annotated[int, Bounds(1, 100)] = 3
    stage_range: tuple[Share, ...] = (0, 1 / 3, 2 / 3, 1)
    gamma: Positive = 1 / 3
    prediction_type: PredictionType = "flow_prediction"
    use_flow_sigmas: bool = True

    def plan(
        self,
        num_inference_steps: int | None = None,
        *,
        stage_index: int = 0,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> Plan:
        """The table of one stage's run.

        Args:
            num_inference_steps: how many steps.
            stage_index: which of the stages, from 0.
            sigmas: the levels of a scheduler of one stage, falling, without the 0 at the end; where a run leaves out
                the last level, one more than the steps.
            mu: the resolution's shift, where use_dynamic_shifting is on.
        """
        return self._stage(num_inference_steps, stage_index, sigmas, mu)

    def _stage(self, n: int | None, stage_index: int, sigmas: Sequence[float] | None, mu: float | None) -> Plan:
        raise NotImplementedError

    def renoising(self, stage_index: int) -> tuple[float, float]:
        """(a, b) for x = a x + b noise as that stage begins; noise as `fdiff.schedulers.stages.renoising` says."""
        return renoising(self, stage_index)

    def times(self, share: jax.Array) -> jax.Array:
        """As every flow's. Raises ValueError for several stages, whose x are not of one flow."""
        if self.stages > 1:
            raise ValueError(f"stages is {self.stages}; only a flow of one stage has levels to be trained at")
        return super().times(share)


def lay_stage(
    scheduler: Any,
    levels: int | None,
    stage_index: int,
    sigmas: Sequence[float] | None,
    mu: float | None,
    keep_last: bool = True,
) -> Steps:
    """The steps of one stage: even levels, then 0; without the lowest of them unless `keep_last`.

    Raises ValueError for a stage that is none, sigmas for one of several, or shifts that contradict each other.
    """
    _check(scheduler)
    _check_index(stage_index, range(scheduler.stages), "with these stages it must be 0")
    dynamic, total = scheduler.use_dynamic_shifting, scheduler.num_train_timesteps
    if dynamic and scheduler.shift != 1:
        raise ValueError("shift contradicts use_dynamic_shifting, whose mu is the shift; leave it at 1")
    if dynamic != (mu is not None):
        raise ValueError("mu goes with use_dynamic_shifting: give both or neither")
    if sigmas is not None:
        if scheduler.stages > 1 or levels is not None:
            raise ValueError("sigmas are for a scheduler of one stage, in place of num_inference_steps")
        laid = given_levels("sigmas", sigmas, 1.0)
        if len(laid) == 1 and not keep_last:
            raise ValueError("sigmas must be two or more: the last of them is left out")
    elif scheduler.stages > 1:
        laid = np.linspace(TOP, TOP / total, spacing.check_steps(levels))
    else:
        laid = np.linspace(1, 1 / total, spacing.check_steps(levels) + 1)[:-1]
        if scheduler.shift != 1:
            laid = spacing.shift_flow_by(laid, scheduler.shift, scheduler.time_shift_type)
    if scheduler.stages == 1:
        high, low = float(total), 0.0
        t = laid * total
    else:
        high, low = _timesteps(scheduler, stage_index)
        t = np.linspace(high, low, len(laid))
    if not keep_last:
        t, laid = t[:-1], laid[:-1]
    if mu is not None:
        laid = spacing.shift_flow_by(laid, mu, scheduler.time_shift_type)
        t = low + laid * (high - low)
    return Steps(t, laid, np.append(laid[1:], 0.0))


def renoising(scheduler: Any, stage_index: int) -> tuple[float, float]:
    """(a, b) for x = a x + b noise, once x is enlarged for that stage.

        a = 1 / (sqrt(1 + 1 / gamma) sigma + 1 - sigma),  b = a sigma / sqrt(gamma),  sigma the flow's where it begins

    The noise of a patch of pixels has covariance (1 + gamma) I - gamma, which takes the blocks of the enlarged x away.
    Raises ValueError for the first stage, which begins with noise, or one that is none.
    """
    _check(scheduler)
    _check_index(stage_index, range(1, scheduler.stages), "what is renoised begins at stage 1")
    sigma = _flow(scheduler)[int(scheduler.stage_range[stage_index] * scheduler.num_train_timesteps)]
    a = 1 / (np.sqrt(1 + 1 / scheduler.gamma) * sigma + 1 - sigma)
    return float(a), float(a * sigma / np.sqrt(scheduler.gamma))


def _check(scheduler: Any) -> None:
    """Raise ValueError for stages that there cannot be."""
    ends = spacing.numbers("stage_range", scheduler.stage_range)
    if len(ends) <= scheduler.stages or not spacing.falls(-ends) or ends[0] < 0 or ends[-1] > 1:
        raise ValueError(f"stage_range is {show(scheduler.stage_range)}; for {scheduler.stages} stages it must "
                         f"be {scheduler.stages + 1} numbers that rise from 0 to 1")


def _check_index(stage_index: Any, indices: range, wanted: str) -> None:
    if not isinstance(stage_index, int | np.integer) or stage_index not in indices:
        raise ValueError(f"stage_index is {show(stage_index)}; {wanted} to {indices.stop - 1}")


def _flow(scheduler: Any) -> np.ndarray:
    """The sigmas (T,) of the whole flow, falling from below 1."""
    even = np.arange(scheduler.num_train_timesteps, 0, -1) * (1 - 1 / scheduler.num_train_timesteps)
    return spacing.shift_flow(even / scheduler.num_train_timesteps, scheduler.shift)


def _timesteps(scheduler: Any, stage_index: int) -> tuple[float, float]:
    """The highest and lowest timestep of a stage: its share of all timesteps is that of the noise it removes."""
    total, flow = scheduler.num_train_timesteps, _flow(scheduler)
    spans = []
    for i in range(scheduler.stages):
        begin, end = (int(scheduler.stage_range[j] * total) for j in (i, i + 1))
        start = flow[max(begin, 0)]
        if i:
            start = 1 - renoising(scheduler, i)[0] * (1 - start)
        spans.append(start - (flow[end] if end < total else 0.0))
    before, after = (sum(spans[:k]) / sum(spans) for k in (stage_index, stage_index + 1))
    high = min(flow[int(before * total)] * total, total - 1)
    low = flow[min(int(after * total), total - 1)] * total
    return high, high + (low - high) * (total - 1) / total
