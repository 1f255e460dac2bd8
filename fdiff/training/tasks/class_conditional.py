"""Pictures of a class that is asked for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from fdiff.pipelines import ClassConditionalPipeline
from fdiff.pipelines.task import option
from fdiff.training.data import Source
from fdiff.training.loss import denoising_loss, withhold
from fdiff.training.order import shapes_of
from fdiff.training.recipe import Recipe, Task, setting
from fdiff.training.tasks.pixels import PixelSettings, pixels, prepared, scheduler, unet, weight


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassSettings(PixelSettings):
    """Of networks that are told a class."""

    withhold: float = setting(
        0.1, "share of the samples whose class is withheld, so that guidance can be used", least=0, below=1
    )
    guidance_scale: float = option(1.5, "that the saved model draws with unless told otherwise")
    inference_steps: int = setting(50, "that the saved model draws in unless told otherwise", least=1)


def recipe(settings: ClassSettings, source: Source, _: Path) -> Recipe:
    """A U-Net that draws pictures like those of a class of the source.

    Raises ValueError for data without classes.
    """
    if not source.classes:
        raise ValueError("the data has no classes; put the pictures of each into a folder, or train unconditional")
    prepare, nothing = prepared(settings, source), len(source.classes)
    model = unet(settings, prepare, num_class_embeds=nothing + 1)
    levels, weighed = scheduler(settings), weight(settings.weight)

    def network(params: Any, labels: jax.Array, key: jax.Array, x: jax.Array, t: jax.Array) -> Any:
        return model.apply({"params": params}, x, t, labels, rngs={"dropout": key})

    def loss(params: Any, batch: Any, key: jax.Array) -> jax.Array:
        key, key_dropout, key_withhold = jax.random.split(key, 3)
        labels = withhold(key_withhold, settings.withhold, batch["label"], jnp.int32(nothing))
        told = Partial(network, params, labels, key_dropout)
        return denoising_loss(told, levels, pixels(batch["image"]), key, weight=weighed)

    def pipeline(params: Any) -> tuple[Any, Any]:
        pipe = ClassConditionalPipeline(
            model, levels, source.classes, num_inference_steps=settings.inference_steps,
            guidance_scale=settings.guidance_scale,
        )  # fmt: skip
        return pipe, {"unet": params}

    def draw(pipe: Any, params: Any, key: jax.Array, count: int) -> list[Any]:
        drawn: list[Any] = pipe(params, [i % nothing for i in range(count)], key=key, progress=False).images
        return drawn

    def collate(arrays: dict[str, Any]) -> Any:
        return {"image": arrays["image"], "label": arrays["label"].astype("int32")}

    return Recipe(model.init_params(jax.random.key(settings.seed)), loss, prepare, collate, pipeline, draw,
                  shapes=shapes_of(settings.buckets, settings.size))


class_conditional = Task(ClassSettings, recipe, "Pictures of a class, one of those of the data.")
