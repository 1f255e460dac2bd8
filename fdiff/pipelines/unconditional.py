"""Images from noise alone: DDPM and DDIM."""

from __future__ import annotations

import dataclasses

import jax
from jax.tree_util import Partial

from fdiff import images, sampling
from fdiff.models import UNet2DModel
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
from fdiff.schedulers import DDIMScheduler, Scheduler
from fdiff.spacing import check_count


def unconditional(unet: UNet2DModel, params: Params, plan: Plan, key: jax.Array, batch_size: int = 1) -> jax.Array:
    """Draw images (b, h, w, c), in [-1, 1] or nearly so: a pure function to jit, vmap and differentiate.

    Args:
        unet: the module; params: {"unet": its parameters}.
        plan: from a scheduler.
        key: one key, or (b,) keys; image i depends on its own key alone.
        batch_size: b.
    """
    run = _run(unet, params, plan, key, batch_size)
    return sampling.sample(run.network, run.plan, run.x, run.key)


def _run(unet: UNet2DModel, params: Params, plan: Plan, key: jax.Array, batch_size: int) -> sampling.Steps:
    first, later = image_keys(key, batch_size)
    x = plan.start * normal(first, sample_shape(unet))
    return sampling.steps(Partial(unet.apply, {"params": tree_of(params, "unet")}), plan, x, later)


@dataclasses.dataclass(frozen=True)
class DDPMPipeline(DiffusionPipeline):
    """Unconditional images with the scheduler of the checkpoint (Ho et al. 2020)."""

    unet: UNet2DModel
    scheduler: Scheduler

    def __call__(
        self,
        params: Params,
        *,
        key: jax.Array,
        batch_size: int = 1,
        num_inference_steps: int = 1000,
        plan: Plan | None = None,
        output_type: str = "pil",
        progress: bool = True,
    ) -> ImageOutput:
        """Draw images.

        Args:
            params: {"unet": ...}.
            key: a JAX key, or one for each image.
            batch_size: how many images.
            num_inference_steps: network calls, at most as many as the model was trained with.
            plan: a table in place of the scheduler's own.
            output_type: pil; np, (b, h, w, c) in [0, 1]; array, in [-1, 1].
            progress: show a bar.
        """
        images.check_output_type(output_type)
        run = self.steps(params, key=key, batch_size=batch_size, num_inference_steps=num_inference_steps, plan=plan)
        return ImageOutput(images.to_output(finish(run, progress=progress), output_type))

    def steps(
        self,
        params: Params,
        *,
        key: jax.Array,
        batch_size: int = 1,
        num_inference_steps: int = 1000,
        plan: Plan | None = None,
    ) -> sampling.Steps:
        """The same run to iterate over: (state, x0) after each step."""
        check_count("batch_size", batch_size)
        return _run(self.unet, params, make_plan(self.scheduler, num_inference_steps, plan), key, batch_size)


@dataclasses.dataclass(frozen=True)
class DDIMPipeline(DiffusionPipeline):
    """Unconditional images in few steps with DDIM, whatever scheduler the checkpoint names (Song et al. 2021)."""

    unet: UNet2DModel
    scheduler: Scheduler

    def __call__(
        self,
        params: Params,
        *,
        key: jax.Array,
        batch_size: int = 1,
        eta: float = 0.0,
        num_inference_steps: int = 50,
        use_clipped_model_output: bool = False,
        output_type: str = "pil",
        progress: bool = True,
    ) -> ImageOutput:
        """Draw images; the arguments are those of `DDPMPipeline` and of `DDIMScheduler.plan`."""
        scheduler = DDIMScheduler.from_config(self.scheduler)
        plan = scheduler.plan(num_inference_steps, eta=eta, use_clipped_model_output=use_clipped_model_output)
        return DDPMPipeline(self.unet, scheduler)(
            params, key=key, batch_size=batch_size, plan=plan, output_type=output_type, progress=progress
        )


