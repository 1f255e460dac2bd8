"""Images from noise alone: DDPM and DDIM."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import KW_ONLY

import jax
from jax.tree_util import Partial

from fdiff import images, sampling
from fdiff.models import DiTTransformer2DModel, UNet1DModel, UNet2DModel
from fdiff.pipelines.denoise import Network
from fdiff.pipelines.draws import Draws, Seed, Wanted, checked_key, draw_as_asked, image_keys, normal
from fdiff.pipelines.latent import Begun
from fdiff.pipelines.pipeline import (
    DiffusionPipeline,
    ImageOutput,
    Params,
    sample_shape,
    tree_of,
)
from fdiff.pipelines.plans import Planned, make_plan, planned
from fdiff.pipelines.task import Key, Request, Task, option
from fdiff.plan import Plan
from fdiff.schedulers import DDIMScheduler, Scheduler
from fdiff.spacing import check_count

PictureNetwork = UNet2DModel | DiTTransformer2DModel  # (params, picture, time, class) -> picture


def unconditional(
    unet: PictureNetwork, params: Params, plan: Plan, key: jax.Array, batch_size: int = 1, *, remat: bool = False
) -> jax.Array:
    """Draw images (b, h, w, c), in [-1, 1] or nearly so: a pure function to jit, vmap and differentiate.

    Args:
        unet: the module; params: {"unet": its parameters}.
        plan: from a scheduler.
        key: one key, or (b,) keys; image i depends on its own key alone.
        batch_size: b.
        remat: keep little for a gradient and compute the rest again, see `fdiff.sample`.
    """
    x, draws = from_nothing(unet, plan, key, None, batch_size)
    return sampling.sample(applied(unet, params).network, plan, x, draws.key, remat=remat)


def from_nothing(unet: PictureNetwork, plan: Plan, key: Key, torch_seed: Seed, batch_size: int) -> Begun:
    """Stage: begin with noise in the shape of what the U-Net was trained on. Raises ValueError for no number."""
    return begun_with(sample_shape(unet), plan, key, torch_seed, batch_size)


def begun_with(
    shape: tuple[int, int, int], plan: Plan, key: Key, torch_seed: Seed, batch_size: int
) -> Begun:
    """Noise (b, *shape) to begin with. Raises ValueError for no number."""
    check_count("batch_size", batch_size)
    if key is not None and torch_seed is None:
        first, later = image_keys(checked_key(key, batch_size), batch_size)
        return Begun(plan.start * normal(first, shape), Draws((), later))
    draws = draw_as_asked(key, torch_seed, plan, (batch_size, *shape), "float32", Wanted(shape))
    return Begun(plan.start * draws.arrays[0], draws)


def applied(unet: UNet1DModel | PictureNetwork, params: Params) -> Network:
    """Stage: the U-Net, which is told nothing."""
    return Network(Partial(unet.apply, {"params": tree_of(params, "unet")}))


def pixels(output_type: str) -> Callable[[jax.Array], ImageOutput]:
    """Finish: what the sampler carries is the image. Raises ValueError for an output type that there is not."""
    images.check_output_type(output_type)
    return lambda x: ImageOutput(images.to_output(x, output_type))


@dataclasses.dataclass(frozen=True)
class Unconditional(Request):
    """Images from noise alone."""

    _: KW_ONLY
    batch_size: int = option(1, "how many images", flag="num-images")
    num_inference_steps: int = option(
        1000, "network calls, at most as many as the model was trained with", flag="steps"
    )
    output_type: str = option("pil", "pil; np, (b, h, w, c) in [0, 1]; array, in [-1, 1]", flag=None)


@dataclasses.dataclass(frozen=True)
class UnconditionalDDIM(Unconditional):
    """The same with DDIM."""

    _: KW_ONLY
    num_inference_steps: int = option(50)
    eta: float = option(0.0, "how much of an ancestral step's noise is drawn, 0 to 1")
    use_clipped_model_output: bool = option(False, "take eps anew from the clipped x0 (GLIDE)")


def planned_ddim(
    scheduler: Scheduler, num_inference_steps: int, plan: Plan | None, eta: float, use_clipped_model_output: bool
) -> Planned:
    """Stage: the table of DDIM, whatever scheduler the checkpoint names."""
    if plan is None:
        check_count("num_inference_steps", num_inference_steps)
        plan = DDIMScheduler.from_config(scheduler).plan(
            num_inference_steps, eta=eta, use_clipped_model_output=use_clipped_model_output
        )
    return Planned(make_plan(scheduler, num_inference_steps, plan))


drawing = Task(Unconditional, (planned, from_nothing, applied), pixels, "Draw images.")
drawing_ddim = Task(UnconditionalDDIM, (planned_ddim, from_nothing, applied), pixels, "Draw images.")


@dataclasses.dataclass(frozen=True)
class DDPMPipeline(DiffusionPipeline):
    """Unconditional images with the scheduler of the checkpoint (Ho et al. 2020)."""

    unet: PictureNetwork
    scheduler: Scheduler

    __call__, steps = drawing.methods()


@dataclasses.dataclass(frozen=True)
class DDIMPipeline(DiffusionPipeline):
    """Unconditional images in few steps with DDIM, whatever scheduler the checkpoint names (Song et al. 2021)."""

    unet: PictureNetwork
    scheduler: Scheduler

    __call__, steps = drawing_ddim.methods()
