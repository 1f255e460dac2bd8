"""All of a pipeline shaped like FLUX's: packed tokens, a shift that they ask for, guidance that the network is told."""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

import fdiff
from fdiff import guidance
from fdiff.pipelines import latent
from fdiff.pipelines.denoise import Network
from fdiff.pipelines.latent import Begun
from fdiff.pipelines.plans import Planned, make_plan
from fdiff.pipelines.task import Request, Task, needed, option
from tests.pipelines.toy_models import ToyEncoder, ToyTokenizer, ToyTransformer


class Told(NamedTuple):
    text: Any  # (b, m, d)
    ids: Any  # (b, n, 2), the row and the column of each token
    guidance: Any  # (b,)


class Read(NamedTuple):
    told: Told


@dataclasses.dataclass(frozen=True)
class Denoiser:
    transformer: ToyTransformer

    def __call__(self, params: Any, x: jax.Array, t: jax.Array, told: Told) -> Any:
        return self.transformer.apply({"params": params}, x, t, *told)


@dataclasses.dataclass(frozen=True)
class Flux(Request):
    prompt: str = needed("what to draw")
    _: KW_ONLY
    size: int = option(16, "of the picture, in pixels")
    guidance_scale: float = option(3.5, "how closely to keep to the prompt")
    num_inference_steps: int = option(28, "network calls", flag="steps")


def packed(x: jax.Array) -> jax.Array:
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).swapaxes(2, 3).reshape(b, h * w // 4, 4 * c)


def shifted(scheduler: Any, size: int, num_inference_steps: int, plan: Any) -> Planned:
    own = plan or scheduler.plan(num_inference_steps, mu=scheduler.mu((size // 4) ** 2))
    return Planned(make_plan(scheduler, num_inference_steps, own))


def read(params: Any, tokenizer: Any, text_encoder: Any, prompt: str, size: int, guidance_scale: Any) -> Read:
    text = text_encoder.apply({"params": params["text_encoder"]}, tokenizer(prompt))
    ids = np.stack(np.mgrid[: size // 4, : size // 4], -1).reshape(1, -1, 2)
    return Read(Told(text, ids, jnp.full(1, guidance_scale, jnp.float32)))


def begin(vae: Any, plan: Any, size: int, key: Any, torch_seed: Any) -> Begun:
    first = latent.first_latents(plan, (1, size // 2, size // 2, vae.latent_channels), None, key, torch_seed, "float32")
    return first._replace(x=packed(first.x))


def tell(params: Any, transformer: Any, told: Told) -> Network:
    return Network(guidance.given(Partial(Denoiser(transformer), params["transformer"]), told))


def unpacked(pipe: Any, params: Any, output_type: str, size: int) -> Any:
    n, made = size // 4, latent.pictures(pipe, params, output_type)
    return lambda x: made(x.reshape(1, n, n, 2, 2, -1).swapaxes(2, 3).reshape(1, 2 * n, 2 * n, -1))


drawing = Task(Flux, (shifted, read, begin, tell), unpacked, "Draw a picture.")


@fdiff.register
@dataclasses.dataclass(frozen=True)
class ToyFluxPipeline(fdiff.DiffusionPipeline):
    vae: fdiff.AutoencoderKL
    text_encoder: ToyEncoder
    tokenizer: ToyTokenizer
    transformer: ToyTransformer
    scheduler: fdiff.schedulers.Scheduler

    __call__, steps = drawing.methods()
    decode = latent.decode
