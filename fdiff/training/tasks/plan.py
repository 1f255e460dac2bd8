"""A sampler of few calls for a model that is there, learned from what the model draws in many."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from fdiff import guidance, registry, sampling
from fdiff.bars import bar
from fdiff.pipelines import (
    ClassConditionalPipeline,
    DDIMPipeline,
    DDPMPipeline,
    DiffusionPipeline,
    DiTPipeline,
    LDMPipeline,
    dit,
)
from fdiff.pipelines.class_conditional import guided_to_class
from fdiff.pipelines.pipeline import sample_shape, tree_of
from fdiff.pipelines.task import option
from fdiff.pipelines.unconditional import PictureNetwork, applied
from fdiff.plan import Plan
from fdiff.plan_files import save_plan
from fdiff.schedulers import Scheduler, UniPCMultistepScheduler
from fdiff.training import few_calls
from fdiff.training.data import Source
from fdiff.training.kept import keep
from fdiff.training.recipe import Recipe, Settings, Task, setting
from fdiff.training.tasks.pixels import numbers

FILE = "plan.safetensors"  # what the learned table is called in the output folder
KINDS = (ClassConditionalPipeline, DiTPipeline, LDMPipeline, DDIMPipeline, DDPMPipeline)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanSettings(Settings):
    """Of samplers of few calls."""

    model: str = option("digits", "the model whose sampler is learned: a Hub id, a folder, or one that ships")
    calls: int = setting(5, "network calls of the sampler", least=1)
    begin_as: str = option(
        "", "the scheduler that it is at first; DPMSolverMultistepScheduler if not given, or of flows the model's own"
    )
    timesteps: str = option(
        "", "the times of the calls at first, such as 999,820,580,330,100; the scheduler's own if not given"
    )
    runs: int = setting(
        512, "pictures that the model draws in many steps, to learn from; computed once and kept", least=1
    )
    run_steps: int = setting(
        64, "how many those are: of UniPC with Karras sigmas, or of flows the model's own", least=1
    )
    guidance_scale: float | None = option(None, "that all is drawn with; the model's own if not given")
    steps: int = option(600)
    batch_size: int = option(16)
    learning_rate: float = option(3e-2)
    weight_decay: float = option(0.0)
    warmup: int = option(0)
    decay: float = option(0.98)

    def __post_init__(self) -> None:
        """Raise ValueError for what is out of range."""
        super().__post_init__()
        if self.runs < self.batch_size:
            raise ValueError(f"runs is {self.runs}, fewer than a batch of {self.batch_size}; give more, or a smaller "
                             "--batch-size")

    def optimizer(self) -> optax.GradientTransformation:
        """Adam, its rate falling along a cosine."""
        return optax.adam(optax.cosine_decay_schedule(self.learning_rate, self.steps))


class Model(NamedTuple):
    """The model whose sampler is learned, its parameters, and the classes that it can be asked for, 0 if none."""

    pipe: Any
    params: Any
    classes: int
    guidance_scale: float | None

    def network(self, params: Any, labels: jax.Array) -> sampling.Network:
        """What it samples with, told the classes (b,) if it has some."""
        if self.classes and self.guidance_scale == 1:  # half the work
            return guidance.given(Partial(self.net.apply, {"params": tree_of(params, self.name)}), labels)
        if isinstance(self.pipe, ClassConditionalPipeline):
            return guided_to_class(self.pipe, params, labels, self.guidance_scale).network
        if isinstance(self.pipe, DiTPipeline):
            scale = dit.LatentClassConditional.guidance_scale if self.guidance_scale is None else self.guidance_scale
            return dit.guided_to_class(self.pipe.transformer, params, labels, scale).network
        return applied(self.pipe.unet, params).network

    @property
    def name(self) -> str:
        """Which component it is that denoises."""
        return "transformer" if isinstance(self.pipe, DiTPipeline) else "unet"

    @property
    def net(self) -> PictureNetwork:
        """The module that denoises."""
        found: PictureNetwork = getattr(self.pipe, self.name)
        return found


def load(settings: PlanSettings) -> Model:
    """The model of that name. Raises ValueError for one that draws from anything but noise and classes."""
    pipe, params = DiffusionPipeline.from_pretrained(settings.model)
    if not isinstance(pipe, KINDS):
        raise ValueError(f"model is {settings.model}, a {type(pipe).__name__}; choose one of "
                         f"{', '.join(kind.__name__ for kind in KINDS)}")
    classes = getattr(pipe, "classes", 0)
    if not classes and settings.guidance_scale is not None:
        raise ValueError(f"guidance_scale is {settings.guidance_scale}, and {settings.model} has no classes to be "
                         "guided to; leave it out")
    return Model(pipe, params, classes, settings.guidance_scale)


def plans(settings: PlanSettings, scheduler: Scheduler) -> tuple[Plan, Plan]:
    """What the sampler is at first, and what it learns from. Raises ValueError for a scheduler that is none."""
    levels = hasattr(scheduler, "beta_start")
    name = settings.begin_as or ("DPMSolverMultistepScheduler" if levels else type(scheduler).__name__)
    kind = registry.lookup(name, Scheduler)
    if kind is None:
        raise ValueError(f"begin_as is {name!r}, which is no scheduler; fdiff list schedulers names them")
    first, times = kind.from_config(scheduler), numbers("timesteps", settings.timesteps)
    if times and len(times) != settings.calls:
        raise ValueError(f"timesteps are {len(times)} numbers and calls is {settings.calls}; give one for each call")
    start = first.plan(timesteps=times) if times else first.plan(settings.calls)
    if len(start) != settings.calls:
        raise ValueError(f"begin_as is {name}, which takes {len(start)} calls in {settings.calls} steps; choose one of "
                         "a call a step")
    exact = UniPCMultistepScheduler.from_config(scheduler, use_karras_sigmas=True) if levels else scheduler
    return start, exact.plan(settings.run_steps)


def runs(model: Model, settings: PlanSettings, fine: Plan) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """(numbers, arrays): noise (b, h, w, c), the classes that are drawn from it in turn, and where the model goes."""
    key, count = jax.random.key(settings.seed), settings.batch_size
    draw = jax.jit(lambda params, labels, x: sampling.sample(model.network(params, labels), fine, x))
    for start in bar(range(0, settings.runs, count), desc="runs", unit="batch"):
        numbers = [*range(start, min(start + count, settings.runs))]
        x = jax.random.normal(jax.random.fold_in(key, start), (count, *sample_shape(model.net)))
        labels = (start + jnp.arange(count)) % max(model.classes, 1)
        found = {"x": x, "label": labels, "wanted": draw(model.params, labels, fine.start * x)}
        yield numbers, {name: np.asarray(array)[: len(numbers)] for name, array in found.items()}


def taken(sample: Any, random: np.random.Generator) -> dict[str, Any]:
    """The arrays of a run, as they are kept."""
    return dict(sample)


def recipe(settings: PlanSettings, _: Source | None, folder: Path) -> Recipe:
    """The table of a sampler of few calls that comes nearest to what a model draws in many steps.

        min over the table of |sample(table, noise) - sample(fine, noise)|^2        (Watson et al. 2022, their GGDM)

    The model is written beside its table. Raises ValueError for a model or scheduler that this does not do for.
    """
    model = load(settings)
    start, fine = plans(settings, model.pipe.scheduler)
    few_calls.combined(start)  # which says what does not fit
    facts = {"model": settings.model, "runs": settings.runs, "run_steps": settings.run_steps, "seed": settings.seed,
             "guidance_scale": settings.guidance_scale, "batch_size": settings.batch_size}  # fmt: skip
    kept = keep(folder / "runs", facts, settings.runs, runs(model, settings, fine))

    def loss(frozen: Any, free: few_calls.Free, batch: Any, key: jax.Array) -> Any:
        table = few_calls.table(start, free)
        drawn = sampling.sample(model.network(frozen, batch["label"]), table, table.start * batch["x"])
        error = jnp.mean((drawn - batch["wanted"]) ** 2)
        return error, {"distance": jnp.sqrt(error)}

    def learned(free: few_calls.Free) -> Plan:
        return few_calls.on_host(few_calls.table(start, free))

    def draw(pipe: Any, params: Any, key: jax.Array, count: int) -> list[Any]:
        asked: dict[str, Any] = {"batch_size": count}
        if model.classes:
            asked = {"class_labels": [i % model.classes for i in range(count)]}
            asked |= {} if settings.guidance_scale is None else {"guidance_scale": settings.guidance_scale}
        drawn: list[Any] = pipe(params, **asked, key=key, plan=params["plan"], progress=False).images
        return drawn

    return Recipe(
        few_calls.begin(start), Partial(loss, model.params), taken, lambda arrays: arrays,
        lambda free: (model.pipe, {**model.params, "plan": learned(free)}), draw, kept,
        lambda place, free: save_plan(place / FILE, learned(free)),
    )  # fmt: skip


plan = Task(PlanSettings, recipe, "A sampler of few calls for a model that is there.", data=False)
