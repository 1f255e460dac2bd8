"""Images of a class, with classifier-free guidance."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from fdiff import guidance, hub, sampling
from fdiff.pipelines.checks import check_scale
from fdiff.pipelines.denoise import Network
from fdiff.pipelines.pipeline import DiffusionPipeline, Params, tree_of
from fdiff.pipelines.plans import Planned, make_plan
from fdiff.pipelines.task import Request, Task, needed, option
from fdiff.pipelines.unconditional import PictureNetwork, from_nothing, pixels
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler

MNIST = hub.SHIPPED / "mnist"
DEFAULT = MNIST  # the model that `fdiff generate` draws with where none is named
DIGITS = hub.SHIPPED / "digits"  # a smaller one, of 8x8 pixels
Labels = Sequence[int | str] | int | str


def class_conditional(
    unet: PictureNetwork, params: Params, plan: Plan, class_labels: jax.Array, key: jax.Array,
    guidance_scale: jax.Array | float = 1.0,
    *, remat: bool = False,
) -> jax.Array:  # fmt: skip
    """Draw one image of each class (b, h, w, c), in [-1, 1] or nearly so: a pure function to jit, vmap, differentiate.

    Args:
        unet: the module; its last class embedding stands for "no class". params: {"unet": its parameters}.
        plan: from a scheduler.
        class_labels: (b,) integers.
        key: one key, or (b,) keys; image i depends on its own key alone.
        guidance_scale: a number or (b,): out = none + scale (class - none) (Ho & Salimans 2022, eq. 6).
        remat: keep little for a gradient and compute the rest again, see `fdiff.sample`.
    """
    x, draws = from_nothing(unet, plan, key, None, len(class_labels))
    return sampling.sample(_guided(unet, params, class_labels, guidance_scale), plan, x, draws.key, remat=remat)


def _guided(unet: PictureNetwork, params: Params, class_labels: jax.Array, guidance_scale: Any) -> sampling.Network:
    nothing = jnp.full_like(class_labels, (unet.num_class_embeds or 1) - 1)
    network = Partial(unet.apply, {"params": tree_of(params, "unet")})
    return guidance.classifier_free(network, class_labels, nothing, guidance_scale)


@dataclasses.dataclass(frozen=True)
class ClassConditional(Request):
    """Images of classes."""

    class_labels: Labels = needed("numbers or names of classes, one image of each", flag="class")
    _: KW_ONLY
    guidance_scale: float | None = option(None, "1 is none; the checkpoint's own if not given")
    num_inference_steps: int | None = option(
        None, "network calls; the checkpoint's own if not given", flag="steps"
    )
    output_type: str = option("pil", "pil; np, (b, h, w, c) in [0, 1]; array, in [-1, 1]", flag=None)


class Labelled(NamedTuple):
    """The classes as (b,) integers, and their number."""

    class_labels: jax.Array
    batch_size: int


def labelled(pipe: Any, class_labels: Labels) -> Labelled:
    """Stage: the classes by number. Raises ValueError for none, and for one that the model does not have."""
    alone = isinstance(class_labels, str) or not isinstance(class_labels, Iterable)
    asked: Any = [class_labels] if alone or getattr(class_labels, "ndim", 1) == 0 else class_labels
    labels = jnp.asarray([pipe.class_number(label) for label in asked], jnp.int32)
    if not len(labels):
        raise ValueError("class_labels is empty; name one class or more")
    return Labelled(labels, len(labels))


def planned_as_suits(pipe: ClassPipeline, num_inference_steps: int | None, plan: Plan | None) -> Planned:
    """Stage: the table, of the checkpoint's own number of steps if none is given."""
    steps = pipe.num_inference_steps if num_inference_steps is None else num_inference_steps
    return Planned(make_plan(pipe.scheduler, steps, plan))


def guided_to_class(
    pipe: ClassPipeline, params: Params, class_labels: jax.Array, guidance_scale: float | None
) -> Network:
    """Stage: the U-Net, guided from no class to each."""
    scale = pipe.guidance_scale if guidance_scale is None else guidance_scale
    check_scale("guidance_scale", scale, len(class_labels))
    return Network(_guided(pipe.unet, params, class_labels, scale))


@dataclasses.dataclass(frozen=True)
class ClassPipeline(DiffusionPipeline):
    """What pipelines of classes have: a U-Net, or a DiT in pixels, whose last class embedding stands for "no class".

    `labels` names the classes, in order; `num_inference_steps` and `guidance_scale` are what suits the checkpoint.
    """

    unet: PictureNetwork
    scheduler: Scheduler
    labels: tuple[str, ...] = ()
    num_inference_steps: int = 50
    guidance_scale: float = 1.0

    @property
    def classes(self) -> int:
        """How many classes can be asked for."""
        return (self.unet.num_class_embeds or 1) - 1

    def class_number(self, label: int | str) -> int:
        """The number of a class given by its number or its name. Raises ValueError where the model has none such."""
        return number_of(label, [[name] for name in self.labels], self.classes)


def number_of(label: int | str, names: Sequence[Sequence[str]], classes: int) -> int:
    """The number of a class that is given by a number or by one of its names. Raises ValueError for one unknown."""
    for i, known in enumerate(names):
        if str(label) in known:
            return i
    if not str(label).isdecimal() or int(label) >= classes:
        first = [known[0] for known in names[:20]]
        said = f" ({', '.join(first)}{', ...' if len(names) > len(first) else ''})" if names else ""
        raise ValueError(f"the model has no class {label!r}; it has 0 to {classes - 1}{said}")
    return int(label)


drawing_of_class = Task(
    ClassConditional, (labelled, planned_as_suits, from_nothing, guided_to_class), pixels,
    "Draw one image of each class that is asked for.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ClassConditionalPipeline(ClassPipeline):
    """Images of a class."""

    __call__, steps = drawing_of_class.methods()
