"""Pictures from noise alone, in the latent space of a vector-quantized autoencoder."""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY
from typing import ClassVar

import jax

from fdiff import sampling
from fdiff.models import AutoencoderKL, UNet2DModel, VQModel
from fdiff.pipelines import latent
from fdiff.pipelines.draws import Seed, Wanted, draw, draw_as_asked
from fdiff.pipelines.latent import Begun
from fdiff.pipelines.pipeline import DiffusionPipeline, Params, sample_shape
from fdiff.pipelines.plans import planned
from fdiff.pipelines.task import Key, Request, Task, option
from fdiff.pipelines.unconditional import PictureNetwork, applied
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler
from fdiff.spacing import check_count


def latent_diffusion(
    unet: UNet2DModel, vqvae: VQModel, params: Params, plan: Plan, key: jax.Array, batch_size: int = 1,
    *, remat: bool = False,
) -> jax.Array:
    """Draw pictures (b, h, w, c), in [-1, 1] or nearly so: a pure function (Rombach et al. 2022, unconditional).

    Args:
        unet, vqvae: the modules; params: their parameters under these names.
        plan: from a scheduler.
        key: one key, or (b,) keys; picture i depends on its own key alone.
        batch_size: b.
        remat: keep little for a gradient and compute the rest again, see `fdiff.sample`.
    """
    (noise,), later, _ = draw(key, batch_size, Wanted(sample_shape(unet)))
    network = applied(unet, params).network
    latents = sampling.sample(network, plan, plan.start * noise, later, remat=remat)
    return latent.decoded(vqvae, params["vqvae"], latents)


@dataclasses.dataclass(frozen=True)
class Unconditional(Request):
    """Pictures from noise alone."""

    _: KW_ONLY
    batch_size: int = option(1, "how many pictures", flag="num-images")
    num_inference_steps: int = option(50, "network calls", flag="steps")


def from_nothing(unet: PictureNetwork, plan: Plan, key: Key, torch_seed: Seed, batch_size: int) -> Begun:
    """Stage: begin with noise alone. Raises ValueError for a batch_size that is no number."""
    check_count("batch_size", batch_size)
    shape = sample_shape(unet)
    draws = draw_as_asked(key, torch_seed, plan, (batch_size, *shape), "float32", Wanted(shape))
    return Begun(plan.start * draws.arrays[0], draws)


drawing = Task(Unconditional, (planned, from_nothing, applied), latent.pictures, "Draw pictures.")


@dataclasses.dataclass(frozen=True)
class LDMPipeline(DiffusionPipeline):
    """Unconditional pictures with latent diffusion, as CompVis/ldm-celebahq-256 draws faces (Rombach et al. 2022)."""

    autoencoder: ClassVar[str] = "vqvae"

    vqvae: VQModel | AutoencoderKL
    unet: PictureNetwork
    scheduler: Scheduler

    decode = latent.decode
    __call__, steps = drawing.methods()
