"""Pictures of one kind, drawn from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
from jax.tree_util import Partial

from fdiff.pipelines import DDIMPipeline
from fdiff.training.data import Source
from fdiff.training.loss import denoising_loss
from fdiff.training.order import shapes_of
from fdiff.training.recipe import Recipe, Task
from fdiff.training.tasks.pixels import PixelSettings, pixels, prepared, scheduler, unet, weight


def recipe(settings: PixelSettings, source: Source, _: Path) -> Recipe:
    """A U-Net that draws pictures like those of the source."""
    prepare = prepared(settings, source)
    model, levels, weighed = unet(settings, prepare), scheduler(settings), weight(settings.weight)

    def network(params: Any, key: jax.Array, x: jax.Array, t: jax.Array) -> Any:
        return model.apply({"params": params}, x, t, rngs={"dropout": key})

    def loss(params: Any, images: Any, key: jax.Array) -> jax.Array:
        key, key_dropout = jax.random.split(key)
        return denoising_loss(Partial(network, params, key_dropout), levels, pixels(images), key, weight=weighed)

    def draw(pipe: Any, params: Any, key: jax.Array, count: int) -> list[Any]:
        drawn: list[Any] = pipe(params, batch_size=count, key=key, progress=False).images
        return drawn

    return Recipe(
        model.init_params(jax.random.key(settings.seed)), loss, prepare, lambda arrays: arrays["image"],
        lambda params: (DDIMPipeline(model, levels), {"unet": params}), draw,
        shapes=shapes_of(settings.buckets, settings.size),
    )  # fmt: skip


unconditional = Task(PixelSettings, recipe, "Pictures like those of the data.")
