"""Pictures of a class that is asked for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax

from fdiff.pipelines import ClassConditionalPipeline
from fdiff.pipelines.task import option
from fdiff.training.data import Source
from fdiff.training.loader import pixels
from fdiff.training.recipe import Recipe, Task, setting
from fdiff.training.tasks.denoising import collated, loss_of, prepared_for
from fdiff.training.tasks.pixels import PixelSettings, buckets, init_params, network, prepared, scheduler, shape_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassSettings(PixelSettings):
    """Of networks that are told a class."""

    withhold: float = setting(
        0.1, "share of the samples whose class is withheld, so that guidance can be used", least=0, below=1
    )
    guidance_scale: float = option(1.5, "that the saved model draws with unless told otherwise")
    inference_steps: int = setting(50, "that the saved model draws in unless told otherwise", least=1)


def recipe(settings: ClassSettings, source: Source, _: Path) -> Recipe:
    """A network that draws pictures like those of a class of the source.

    Raises ValueError for data without classes.
    """
    if not source.classes:
        raise ValueError("the data has no classes; put the pictures of each into a folder, or train unconditional")
    prepare, classes = prepared(settings, source, settings.gray), len(source.classes)
    model, levels = network(settings, shape_of(prepare), classes), scheduler(settings)

    def pipeline(params: Any) -> tuple[Any, Any]:
        pipe = ClassConditionalPipeline(
            model, levels, source.classes, num_inference_steps=settings.inference_steps,
            guidance_scale=settings.guidance_scale,
        )  # fmt: skip
        return pipe, {"unet": params}

    def draw(pipe: Any, params: Any, key: jax.Array, count: int) -> list[Any]:
        drawn: list[Any] = pipe(params, [i % classes for i in range(count)], key=key, progress=False).images
        return drawn

    return Recipe(
        init_params(model, settings.seed), loss_of(settings, model, pixels, classes, settings.withhold),
        prepared_for(settings, prepare, shape_of(prepare)), collated("image", conditional=True), pipeline, draw,
        shapes=buckets(settings, model),
    )  # fmt: skip


class_conditional = Task(ClassSettings, recipe, "Pictures of a class, one of those of the data.")
