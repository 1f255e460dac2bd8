"""A training as data: what it can be told, and what a task makes of that."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import optax

from fdiff.pipelines.task import option
from fdiff.training.data import Source
from fdiff.training.loader import FITS, Preparing
from fdiff.training.step import Loss


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What every task can be told; a task's own settings inherit these and say other defaults anew."""

    steps: int = option(10_000, "how many steps in all, those before --resume too")
    batch_size: int = option(64, "samples a step, over all devices")
    seed: int = option(0, "of the parameters, the order of the data and the noise")
    learning_rate: float = option(1e-3, "of AdamW, at its highest")
    warmup: int = option(200, "steps in which the learning rate rises")
    weight_decay: float = option(0.01, "of AdamW")
    clip: float = option(1.0, "the largest norm of the gradient")
    decay: float = option(0.999, "of the average of the parameters, which is what is saved and drawn from")
    accumulate: int = option(1, "parts that a batch goes through in, one after the other, to need less memory")
    dtype: str = option("float32", "what to compute in: float32 or bfloat16; the parameters are float32")
    remat: bool = option(False, "compute what is inside blocks again for the gradient: less memory, more time")
    size: int | None = option(None, "height and width of the pictures; theirs if not given")
    fit: str = option("crop", f"how pictures are brought to the size: {', '.join(FITS)}")
    flip: bool = option(False, "mirror pictures half of the time")
    workers: int = option(0, "processes that read and prepare pictures; 0: the training's own")
    save_every: int = option(500, "steps between checkpoints")
    keep: int = option(2, "checkpoints that are kept")
    sample_every: int | None = option(None, "steps between sheets of samples; a tenth of all if not given; 0: none")
    samples: int = option(16, "pictures of a sheet")

    def __post_init__(self) -> None:
        """Raise ValueError for what is out of range."""
        for name in ("steps", "batch_size", "accumulate", "save_every", "keep", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("warmup", "workers", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay is {self.decay}; it must be 0 or more and below 1")
        if self.fit not in FITS:
            raise ValueError(f"fit is {self.fit!r}; it can be {', '.join(FITS)}")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype is {self.dtype!r}; it can be float32 or bfloat16")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} does not divide into accumulate {self.accumulate} parts")

    def optimizer(self) -> optax.GradientTransformation:
        """AdamW, its rate rising and then falling along a cosine."""
        warmup = min(self.warmup, self.steps // 5)
        return optax.adamw(
            optax.warmup_cosine_decay_schedule(0.0, self.learning_rate, warmup, self.steps),
            weight_decay=self.weight_decay,
        )


class Recipe(NamedTuple):
    """What a task makes of its settings and data.

    params: what is trained, as it begins.
    loss: (params, batch, key) -> number, see `train_step`; a jax.tree_util.Partial where it needs weights that are not
        trained, its first arguments, which are then given to the step in place of being compiled into it.
    prepare: what is done to each sample: (sample, random) -> its arrays and texts.
    collate: the arrays of a batch as `loss` takes them.
    pipeline: trained parameters -> (pipeline or model, its params), to save and to draw from.
    draw: (pipeline, its params, key, how many) -> PIL pictures.
    source: what is trained on, where that is not the data as given but was made of it.
    beside: (folder, trained parameters) writes what else belongs there, such as the adapter alone.
    averaged: the loss is given the average of the parameters too, see `train_step`.
    """

    params: Any
    loss: Loss
    prepare: Preparing
    collate: Callable[[dict[str, Any]], Any]
    pipeline: Callable[[Any], tuple[Any, Any]]
    draw: Callable[[Any, Any, Any, int], list[Any]]
    source: Source | None = None
    beside: Callable[[Path, Any], None] | None = None
    averaged: bool = False


class Task(NamedTuple):
    """A kind of training: its settings, (settings, data, output folder) -> recipe, and what it is for."""

    settings: type[Settings]
    recipe: Callable[[Any, Source, Path], Recipe]
    doc: str
