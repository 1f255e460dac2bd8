"""Parts of a run, for a base model that hands over to a refiner."""

from __future__ import annotations

from typing import Any

import numpy as np

from fdiff.pipelines.pipeline import make_plan
from fdiff.plan import Plan, unit_interval


def part(
    scheduler: Any,
    num_inference_steps: int,
    plan: Plan | None,
    strength: float,
    denoising_start: float | None,
    denoising_end: float | None,
) -> Plan:
    """The table of an image-to-image run: of a strength, or from the share that is done already, and to a share.

    Raises ValueError for shares that do not rise, and as `since` and `until` do.
    """
    if None not in (denoising_start, denoising_end) and denoising_start >= denoising_end:  # type: ignore[operator]
        raise ValueError(f"denoising_end {denoising_end} must be above denoising_start, {denoising_start}")
    if denoising_start is None:
        table = make_plan(scheduler, num_inference_steps, plan, strength)
    else:
        table = since(scheduler, num_inference_steps, plan, denoising_start)
    return until(table, scheduler, denoising_end)


def until(plan: Plan, scheduler: Any, denoising_end: float | None) -> Plan:
    """The rows before the t that is left when this share of the training timesteps is done; all if None.

    Raises ValueError for a share outside (0, 1], or one without a row.
    """
    if denoising_end is None:
        return plan
    kept = int((np.asarray(plan.t) >= _cutoff("denoising_end", scheduler, denoising_end)).sum())
    if not kept:
        raise ValueError(f"denoising_end {denoising_end} leaves no step to do; raise it, or take more steps")
    return plan[:kept]


def since(scheduler: Any, num_inference_steps: int, plan: Plan | None, denoising_start: float) -> Plan:
    """The run of that many steps without those that `until` keeps: as begun anew, with no memory of earlier steps.

    A `plan` that is given begins there already. Raises ValueError for a share outside (0, 1], or one that leaves no
    step.
    """
    cutoff = _cutoff("denoising_start", scheduler, denoising_start)
    if plan is not None:
        return make_plan(scheduler, num_inference_steps, plan)
    t = np.asarray(scheduler.plan(num_inference_steps).t)
    twice = len(t) == 2 * num_inference_steps - 1  # a second call of each step but the last, at the next one's t
    kept = min(len(np.unique(t[t < cutoff])) + twice, num_inference_steps)
    if not kept:
        raise ValueError(f"denoising_start {denoising_start} leaves no step to do; lower it, or take more steps")
    strength = 1.0 if kept == num_inference_steps else (kept + 0.5) / num_inference_steps
    return make_plan(scheduler, num_inference_steps, None, strength)


def _cutoff(name: str, scheduler: Any, share: float) -> int:
    share = unit_interval(name, share)
    if share == 0:
        raise ValueError(f"{name} is {share!r}; it must lie above 0")
    return round(scheduler.num_train_timesteps * (1 - share))
