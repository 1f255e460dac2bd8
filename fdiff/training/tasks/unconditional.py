"""Pictures of one kind, drawn from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from fdiff.pipelines import DDIMPipeline, DDPMPipeline
from fdiff.training.data import Source
from fdiff.training.loader import pixels
from fdiff.training.recipe import Recipe, Task
from fdiff.training.tasks.denoising import collated, loss_of, prepared_for
from fdiff.training.tasks.pixels import PixelSettings, buckets, init_params, network, prepared, scheduler, shape_of


def recipe(settings: PixelSettings, source: Source, _: Path) -> Recipe:
    """A network that draws pictures like those of the source."""
    prepare = prepared(settings, source, settings.gray)
    model, levels = network(settings, shape_of(prepare)), scheduler(settings)
    kind = DDPMPipeline if settings.prediction == "flow" else DDIMPipeline  # which knows no flows

    def draw(pipe: Any, params: Any, key: jax.Array, count: int) -> list[Any]:
        drawn: list[Any] = pipe(params, batch_size=count, num_inference_steps=50, key=key, progress=False).images
        return drawn

    return Recipe(
        init_params(model, settings.seed), loss_of(settings, model, pixels),
        prepared_for(settings, prepare, shape_of(prepare)), collated("image"),
        lambda params: (kind(model, levels), {"unet": params}), draw,
        shapes=buckets(settings, model),
    )  # fmt: skip


unconditional = Task(PixelSettings, recipe, "Pictures like those of the data.")
