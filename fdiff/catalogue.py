"""What is there: the schedulers, models and pipelines that fdiff, and whatever else is registered, can load."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any, NamedTuple

import numpy as np

from fdiff import registry
from fdiff.models.model import Model
from fdiff.pipelines.pipeline import DiffusionPipeline
from fdiff.schedulers.edm import EDMScheduler
from fdiff.schedulers.flow import FlowScheduler
from fdiff.schedulers.scheduler import Scheduler


class SchedulerFacts(NamedTuple):
    """A scheduler class with its default options."""

    name: str
    order: int | None  # that its class declares, None where it has none: consistency models jump
    stochastic: bool
    calls: int  # network calls a step
    kind: str  # of the networks it is for: betas, flow, EDM, or levels of its own


class PipelineFacts(NamedTuple):
    """A pipeline class, and what its call takes without names, such as prompt and image."""

    name: str
    takes: tuple[str, ...]


def list_schedulers() -> list[SchedulerFacts]:
    """Every scheduler class that is registered, by name, as it is with its default options."""
    found = []
    for cls in registry.classes(Scheduler):
        plan, n = _plan(cls)
        calls = round(np.count_nonzero(plan.c_in) / n) if plan else 1
        stochastic = bool(plan and np.any(plan.from_noise))
        found.append(SchedulerFacts(cls.__name__, declared_order(cls), stochastic, calls, _kind(cls)))
    return found


def list_models() -> list[str]:
    """The names of every model class that is registered, as config.json has them."""
    return [cls.__name__ for cls in registry.classes(Model)]


def list_pipelines() -> list[PipelineFacts]:
    """Every pipeline class that is registered, by name."""
    known = registry.classes(DiffusionPipeline)
    return [PipelineFacts(cls.__name__, _taken(cls)) for cls in known if hasattr(cls, "steps")]


def _taken(cls: Any) -> tuple[str, ...]:
    """What a call takes by its place, after the pipeline itself and params."""
    parameters = inspect.signature(cls.steps).parameters.values()
    return tuple(one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD)[2:]


def declared_order(cls: type[Scheduler]) -> int | None:
    """The order that the docstring of a scheduler class declares; an option's default where it names that."""
    text = " ".join((cls.__doc__ or "").split())
    declared = re.search(r"[Oo]rder (is )?(\d|\w+_order)( \+ 1)?", text)
    if re.search(r"\b[Nn]o order", text) or not declared:
        return None
    option = declared[2] if declared[2].endswith("_order") else "solver_order"  # "order 1 to 3"
    return int(getattr(cls, option, declared[2])) + bool(declared[3])


def _plan(cls: Any) -> tuple[Any, int]:
    """A run with the default options, and of how many steps; None where there is none."""
    for n in (20, 2):
        try:
            return cls().plan(n), n
        except (ValueError, TypeError):
            continue
    return None, 1


def _kind(cls: type[Scheduler]) -> str:
    if issubclass(cls, FlowScheduler):
        return "flow"
    if issubclass(cls, EDMScheduler):
        return "EDM"
    return "betas" if "beta_start" in {field.name for field in dataclasses.fields(cls)} else "own"
