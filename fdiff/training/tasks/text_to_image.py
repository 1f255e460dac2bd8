"""All parameters of the U-Net of a text-to-image model, trained on pictures with captions."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
from jax.tree_util import Partial

from fdiff.pipelines.task import option
from fdiff.training.data import Source
from fdiff.training.recipe import Recipe, Task
from fdiff.training.tasks import latents
from fdiff.training.tasks.latents import Base, TextSettings
from fdiff.training.tasks.material import ENCODED, Material, drawing, material


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuningSettings(TextSettings):
    """Of a whole U-Net."""

    withhold: float = option(0.1)


def recipe(settings: FineTuningSettings, source: Source, folder: Path) -> Recipe:
    """The U-Net of Stable Diffusion 1, 2 or SDXL, trained further on pictures with captions."""
    base = latents.load(settings.model)
    return whole(base, settings, material(base, settings, source, folder / ENCODED))


def whole(base: Base, settings: TextSettings, found: Material) -> Recipe:
    """The recipe that trains all of the U-Net on that material."""
    def loss(needs: Any, params: Any, batch: Any, key: jax.Array) -> jax.Array:
        return latents.loss(base.pipe, settings, {**needs, "unet": params}, batch, key)

    return Recipe(
        base.params["unet"], Partial(loss, latents.frozen(settings, found.needs)), found.prepare, found.collate,
        lambda params: (base.pipe, {**base.params, "unet": params}), drawing(found), found.source,
        shapes=found.shapes,
    )  # fmt: skip


text_to_image = Task(FineTuningSettings, recipe, "A text-to-image model, all of its U-Net trained further.")
