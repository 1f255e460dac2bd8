"""Pictures from noise alone, in the latent space of a vector-quantized autoencoder."""

from __future__ import annotations

import dataclasses

import jax
from jax.tree_util import Partial

from fdiff import sampling
from fdiff.models import UNet2DModel, VQModel
from fdiff.pipelines import latent
from fdiff.pipelines.draws import Draws, Seed, Wanted, draw, draw_as_asked
from fdiff.pipelines.latent import Key
from fdiff.pipelines.pipeline import DiffusionPipeline, ImageOutput, Params, make_plan, sample_shape, tree_of
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler
from fdiff.spacing import check_count


def latent_diffusion(
    unet: UNet2DModel, vqvae: VQModel, params: Params, plan: Plan, key: jax.Array, batch_size: int = 1
) -> jax.Array:
    """Draw pictures (b, h, w, c), in [-1, 1] or nearly so: a pure function (Rombach et al. 2022, unconditional).

    Args:
        unet, vqvae: the modules; params: their parameters under these names.
        plan: from a scheduler.
        key: one key, or (b,) keys; picture i depends on its own key alone.
        batch_size: b.
    """
    run = _run(unet, params, plan, draw(key, batch_size, Wanted(sample_shape(unet))))
    return latent.decoded(vqvae, params["vqvae"], sampling.sample(run.network, run.plan, run.x, run.key))


def _run(unet: UNet2DModel, params: Params, plan: Plan, draws: Draws) -> sampling.Steps:
    network = Partial(unet.apply, {"params": tree_of(params, "unet")})
    return sampling.steps(network, plan, plan.start * draws.arrays[0], draws.key, noise=draws.noise)


@dataclasses.dataclass(frozen=True)
class LDMPipeline(DiffusionPipeline):
    """Unconditional pictures with latent diffusion, as CompVis/ldm-celebahq-256 draws faces (Rombach et al. 2022)."""

    vqvae: VQModel
    unet: UNet2DModel
    scheduler: Scheduler

    def __call__(
        self, params: Params, *, key: Key = None, torch_seed: Seed = None, batch_size: int = 1,
        num_inference_steps: int = 50, plan: Plan | None = None, output_type: str = "pil", progress: bool = True,
    ) -> ImageOutput:  # fmt: skip
        """Draw pictures: the arguments are those of `steps`, and those of `latent.output`."""
        latent.check_output_type(output_type)
        run = self.steps(
            params, key=key, torch_seed=torch_seed, batch_size=batch_size, num_inference_steps=num_inference_steps,
            plan=plan,
        )  # fmt: skip
        return latent.output(self, params, run, output_type, progress)

    def steps(
        self, params: Params, *, key: Key = None, torch_seed: Seed = None, batch_size: int = 1,
        num_inference_steps: int = 50, plan: Plan | None = None,
    ) -> sampling.Steps:  # fmt: skip
        """The run to iterate over: (state, x0) after each step, latents both.

        batch_size: how many pictures. The other arguments are those of `StableDiffusionPipeline.steps`.
        """
        check_count("batch_size", batch_size)
        table, shape = make_plan(self.scheduler, num_inference_steps, plan), sample_shape(self.unet)
        draws = draw_as_asked(key, torch_seed, table, (batch_size, *shape), "float32", Wanted(shape))
        return _run(self.unet, params, table, draws)

    def decode(self, params: Params, latents: jax.Array) -> jax.Array:
        """Pictures (b, h, w, c) in [-1, 1], or nearly so, of latents."""
        return latent.decoded(self.vqvae, params["vqvae"], latents)
