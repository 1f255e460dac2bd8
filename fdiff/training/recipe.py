"""A training as data: what it can be told, and what a task makes of that."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import optax

from fdiff.limits import Limits
from fdiff.pipelines.task import option
from fdiff.training.data import Source
from fdiff.training.loader import FITS, Preparing
from fdiff.training.order import Shape
from fdiff.training.step import Loss

T = TypeVar("T")


def setting(default: T, doc: str = "", **limits: Any) -> T:
    """An `option` with `fdiff.limits.Limits`, which hold for classes that override the default too."""
    found: Any = dataclasses.field(default=default, metadata={"doc": doc, "flag": "", "limits": Limits(**limits)})
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What every task can be told; a task's own settings inherit these and say other defaults anew."""

    steps: int = setting(10_000, "how many steps in all, those before --resume too", least=1)
    batch_size: int = setting(64, "samples a step, over all devices", least=1)
    seed: int = option(0, "of the parameters, the order of the data and the noise")
    learning_rate: float = setting(1e-3, "of AdamW, at its highest", above=0)
    warmup: int = setting(200, "steps in which the learning rate rises", least=0)
    weight_decay: float = setting(0.01, "of AdamW", least=0)
    clip: float = setting(1.0, "the largest norm of the gradient", above=0)
    decay: float = setting(
        0.999, "of the average of the parameters, which is what is saved and drawn from", least=0, below=1
    )
    keep_averages: int = setting(
        0, "steps between averages of two more lengths that are kept, of which any other can be made; 0: none", least=0
    )
    average: float | None = setting(
        None, "the length of the average that is saved, as a share of all steps, such as 0.1: made of those kept, and "
        "anew with --resume; that of decay if not given", above=0, below=0.288,
    )
    accumulate: int = setting(
        1, "parts that a batch goes through in, one after the other, to need less memory", least=1
    )
    dtype: str = setting("float32", "what to compute in: float32 or bfloat16; the parameters are float32",
                         choices=("float32", "bfloat16"))
    remat: bool = option(False, "compute what is inside blocks again for the gradient: less memory, more time")
    size: int | None = setting(None, "height and width of the pictures; theirs if not given", least=1)
    fit: str = setting("crop", f"how pictures are brought to the size: {', '.join(FITS)}", choices=FITS)
    flip: bool = option(False, "mirror pictures half of the time")
    devices: int = setting(
        0, "how many devices to train on, each with its part of the batch; 0: all there are", least=0
    )
    shard: str = setting("data", "what devices share besides the batch: data: nothing; full: the parameters and the "
                         "optimizer's state too, for less memory and more traffic", choices=("data", "full"))
    distributed: str = option("", "be one of several processes: auto, as SLURM, Kubernetes or MPI say; or the address "
                              "of the first, the number of this one and how many there are, as 10.0.0.1:1234,0/2")
    workers: int = setting(0, "processes that read and prepare pictures; 0: the training's own", least=0)
    save_every: int = setting(500, "steps between checkpoints", least=1)
    keep: int = setting(2, "checkpoints that are kept", least=1)
    sample_every: int | None = setting(
        None, "steps between sheets of samples; a tenth of all if not given; 0: none", least=0
    )
    samples: int = setting(16, "pictures of a sheet", least=1)
    tensorboard: bool = option(False, "write event files for TensorBoard too")

    def __post_init__(self) -> None:
        """Raise ValueError for what is out of range."""
        for name, limits in limits_of(type(self)).items():
            limits.check(name, getattr(self, name))
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} does not divide into accumulate {self.accumulate} parts")
        if self.average is not None and not self.keep_averages:
            raise ValueError(f"average is {self.average} and no averages are kept to make it of; give keep_averages")

    def optimizer(self) -> optax.GradientTransformation:
        """AdamW, its rate rising and then falling along a cosine."""
        warmup = min(self.warmup, self.steps // 5)
        return optax.adamw(
            optax.warmup_cosine_decay_schedule(0.0, self.learning_rate, warmup, self.steps),
            weight_decay=self.weight_decay,
        )


def limits_of(cls: type[Settings]) -> dict[str, Limits]:
    """What each setting may be; of a class that overrides a default, as the class before it says."""
    held: list[dict[str, Any]] = [one.__dict__.get("__dataclass_fields__", {}) for one in reversed(cls.__mro__)]
    return {name: Limits() for one in held for name in one} | {
        name: field.metadata["limits"] for one in held for name, field in one.items() if "limits" in field.metadata
    }


def fixed(cls: type[Settings]) -> frozenset[str]:
    """The settings that say what is trained, and not how: a training does not go on with others."""
    own = {field.name for field in dataclasses.fields(cls)} - {field.name for field in dataclasses.fields(Settings)}
    return frozenset(own | {"seed", "size"})


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
    shapes: of pictures, see `batches`.
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
    shapes: tuple[Shape, ...] = ()


class Task(NamedTuple):
    """A kind of training: its settings, (settings, data, output folder) -> recipe, and what it is for.

    data: whether it is trained on data that is given, which is None if not.
    """

    settings: type[Settings]
    recipe: Callable[[Any, Any, Path], Recipe]
    doc: str
    data: bool = True
