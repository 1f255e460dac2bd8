"""The table of a run: whole, of a strength, or a part of it, for a base model that hands over to a refiner."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from fdiff.plan import Plan, unit_interval
from fdiff.schedulers import FlowMatchEulerDiscreteScheduler, Scheduler
from fdiff.schedulers.flow import ShiftedFlowScheduler
from fdiff.spacing import check_count

SLOTS = 6  # plans are padded to as many slots, so that swapping the scheduler compiles nothing


class Planned(NamedTuple):
    """The table of the run."""

    plan: Plan


def planned(scheduler: Scheduler, num_inference_steps: int, plan: Plan | None, strength: float = 1.0) -> Planned:
    """Stage: the table that is given, which is of that strength already, or the scheduler's own."""
    return Planned(make_plan(scheduler, num_inference_steps, plan, strength))


def planned_in_part(
    scheduler: Scheduler, num_inference_steps: int, plan: Plan | None, denoising_end: float | None,
    strength: float = 1.0, denoising_start: float | None = None,
) -> Planned:  # fmt: skip
    """Stage: the table of a run of a strength, or from the share that is done already, and to a share.

    Raises ValueError for shares that do not rise, and as `since` and `until` do.
    """
    if denoising_start is not None and denoising_end is not None and denoising_start >= denoising_end:
        raise ValueError(f"denoising_end {denoising_end} must be above denoising_start, {denoising_start}")
    if denoising_start is None:
        table = make_plan(scheduler, num_inference_steps, plan, strength)
    else:
        table = since(scheduler, num_inference_steps, plan, denoising_start)
    return Planned(until(table, scheduler, denoising_end))


def make_plan(scheduler: Scheduler, num_inference_steps: int, plan: Plan | None, strength: float = 1.0) -> Plan:
    """The given plan or the scheduler's own, padded in slots so that every scheduler shares one compilation.

    Raises ValueError for a number of steps that is none, or a plan without rows.
    """
    if plan is None:
        check_count("num_inference_steps", num_inference_steps)
        return _laid(scheduler, num_inference_steps, unit_interval("strength", strength))
    if not isinstance(plan, Plan) or np.ndim(plan.t) != 1 or not len(plan):
        raise ValueError("plan must be a table of one row or more, such as scheduler.plan(20)")
    return plan.pad(slots=max(plan.slots, SLOTS))


@functools.lru_cache(maxsize=64)
def _laid(scheduler: Scheduler, num_inference_steps: int, strength: float) -> Plan:
    """The scheduler's own table, laid once for runs that are alike."""
    plan = scheduler.plan(num_inference_steps, **({} if strength == 1 else {"strength": strength}))
    return plan.pad(slots=max(plan.slots, SLOTS))


def flow_plan(
    scheduler: Scheduler, num_inference_steps: int, plan: Plan | None, mu: float | None, strength: float = 1.0,
    *, even: bool = True,
) -> Plan:  # fmt: skip
    """The given plan, or the scheduler's own for a diffusion transformer, padded in slots.

    Levels are `even` from 1 to 1 / n, or the scheduler's own, before they are shifted, by mu where its shift is
    dynamic. Of a strength, the last n - floor(n - strength n) steps are run. Raises ValueError as `make_plan`.
    """
    if plan is not None:
        return make_plan(scheduler, num_inference_steps, plan)
    check_count("num_inference_steps", num_inference_steps)
    dynamic = bool(getattr(scheduler, "use_dynamic_shifting", False))
    return _laid_flow(
        scheduler, num_inference_steps, mu if dynamic else None, unit_interval("strength", strength), even
    )


@functools.lru_cache(maxsize=64)
def _laid_flow(scheduler: Any, n: int, mu: float | None, strength: float, even: bool) -> Plan:
    kept = n - int(max(n - min(n * strength, n), 0))
    options: dict[str, Any] = {} if mu is None else {"mu": mu}
    if kept < n:
        options["strength"] = (kept + 0.5) / n if kept else 0.0
    if even and isinstance(scheduler, ShiftedFlowScheduler):
        options["sigmas"] = np.linspace(1, 1 / n, n)
    plan = scheduler.plan(n, **options)
    return plan.pad(slots=max(plan.slots, SLOTS))


def linear_mu(scheduler: Any, tokens: int) -> float:
    """mu of a picture of that many tokens: linear between the shifts of the scheduler's config, as FLUX.1's is."""
    own = scheduler if hasattr(scheduler, "mu") else FlowMatchEulerDiscreteScheduler.from_config(scheduler)
    return float(own.mu(tokens))


def empirical_mu(tokens: int, steps: int) -> float:
    """mu of a picture of that many tokens and a run of so many steps, as FLUX.2's makers measured it.

    Lines in the number of tokens for 10 and for 200 steps, and between and beyond them a line in the steps; above
    4,300 tokens the one for 200 steps, whatever their number.
    """
    many = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        return many
    few = 8.73809524e-05 * tokens + 1.89833333
    return many + (many - few) / 190 * (steps - 200)


def count_rows(plan: Plan) -> int:
    """How many rows a run has, those that padding added behind its last network call left out."""
    if isinstance(plan.c_in, jax.core.Tracer):  # whose values cannot be known
        return len(plan)
    calls = np.flatnonzero(plan.c_in)
    return int(calls[-1]) + 1 if len(calls) else len(plan)


def until(plan: Plan, scheduler: Scheduler, denoising_end: float | None) -> Plan:
    """The rows before the t that is left when this share of the training timesteps is done; all if None.

    Raises ValueError for a share outside (0, 1], or one without a row.
    """
    if denoising_end is None:
        return plan
    kept = int((np.asarray(plan.t) >= _cutoff("denoising_end", scheduler, denoising_end)).sum())
    if not kept:
        raise ValueError(f"denoising_end {denoising_end} leaves no step to do; raise it, or take more steps")
    return plan[:kept]


def since(scheduler: Scheduler, num_inference_steps: int, plan: Plan | None, denoising_start: float) -> Plan:
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
