"""Images of a class, with classifier-free guidance."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from fdiff import guidance, images, sampling
from fdiff.models import UNet2DModel
from fdiff.pipelines.checks import check_scale
from fdiff.pipelines.pipeline import (
    DiffusionPipeline,
    ImageOutput,
    Params,
    finish,
    image_keys,
    make_plan,
    normal,
    sample_shape,
    tree_of,
)
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler

DIGITS = Path(__file__).parents[1] / "checkpoints" / "digits"  # the model that fdiff ships


def class_conditional(
    unet: UNet2DModel,
    params: Params,
    plan: Plan,
    class_labels: jax.Array,
    key: jax.Array,
    guidance_scale: jax.Array | float = 1.0,
) -> jax.Array:
    """Draw one image of each class (b, h, w, c), in [-1, 1] or nearly so: a pure function to jit, vmap, differentiate.

    Args:
        unet: the module; its last class embedding stands for "no class". params: {"unet": its parameters}.
        plan: from a scheduler.
        class_labels: (b,) integers.
        key: one key, or (b,) keys; image i depends on its own key alone.
        guidance_scale: a number or (b,): out = none + scale (class - none) (Ho & Salimans 2022, eq. 6).
    """
    run = _run(unet, params, plan, class_labels, key, guidance_scale)
    return sampling.sample(run.network, run.plan, run.x, run.key)


def _run(
    unet: UNet2DModel, params: Params, plan: Plan, class_labels: jax.Array, key: jax.Array, guidance_scale: Any
) -> sampling.Steps:
    first, later = image_keys(key, len(class_labels))
    x = plan.start * normal(first, sample_shape(unet))
    nothing = jnp.full_like(class_labels, (unet.num_class_embeds or 1) - 1)
    network = Partial(unet.apply, {"params": tree_of(params, "unet")})
    guided = guidance.classifier_free(network, class_labels, nothing, guidance_scale)
    return sampling.steps(guided, plan, x, later)


@dataclasses.dataclass(frozen=True)
class ClassConditionalPipeline(DiffusionPipeline):
    """Images of a class from a UNet2DModel whose last class embedding stands for "no class".

    `labels` names the classes, in order; `num_inference_steps` and `guidance_scale` are what suits the checkpoint.
    """

    unet: UNet2DModel
    scheduler: Scheduler
    labels: tuple[str, ...] = ()
    num_inference_steps: int = 50
    guidance_scale: float = 1.0

    def __call__(
        self,
        params: Params,
        class_labels: Sequence[int | str] | int | str,
        *,
        key: jax.Array,
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
        plan: Plan | None = None,
        output_type: str = "pil",
        progress: bool = True,
    ) -> ImageOutput:
        """Draw one image of each class that is asked for.

        Args:
            params: {"unet": ...}.
            class_labels: numbers or names of classes.
            key: a JAX key, or one for each image.
            guidance_scale: 1 is none; the checkpoint's own if not given.
            num_inference_steps: the checkpoint's own if not given.
            plan: a table in place of the scheduler's own.
            output_type: pil; np, (b, h, w, c) in [0, 1]; array, in [-1, 1].
            progress: show a bar.

        Raises ValueError for a class that the model does not have.
        """
        images.check_output_type(output_type)
        run = self.steps(
            params,
            class_labels,
            key=key,
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
            plan=plan,
        )
        return ImageOutput(images.to_output(finish(run, progress=progress), output_type))

    def steps(
        self,
        params: Params,
        class_labels: Sequence[int | str] | int | str,
        *,
        key: jax.Array,
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
        plan: Plan | None = None,
    ) -> sampling.Steps:
        """The same run to iterate over: (state, x0) after each step."""
        alone = isinstance(class_labels, str) or not isinstance(class_labels, Iterable)
        asked: Any = [class_labels] if alone or getattr(class_labels, "ndim", 1) == 0 else class_labels
        labels = jnp.asarray([self.class_number(label) for label in asked], jnp.int32)
        if not len(labels):
            raise ValueError("class_labels is empty; name one class or more")
        plan = make_plan(
            self.scheduler, self.num_inference_steps if num_inference_steps is None else num_inference_steps, plan
        )
        scale = self.guidance_scale if guidance_scale is None else guidance_scale
        check_scale("guidance_scale", scale, len(labels))
        return _run(self.unet, params, plan, labels, key, scale)

    def class_number(self, label: int | str) -> int:
        """The number of a class given by its number or its name. Raises ValueError where the model has none such."""
        classes = (self.unet.num_class_embeds or 1) - 1
        if str(label) in self.labels:
            return self.labels.index(str(label))
        if not str(label).isdecimal() or int(label) >= classes:
            names = f" ({', '.join(self.labels)})" if self.labels else ""
            raise ValueError(f"the model has no class {label!r}; it has 0 to {classes - 1}{names}")
        return int(label)
