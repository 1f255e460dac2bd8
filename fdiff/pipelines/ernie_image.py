"""ERNIE-Image (Baidu 2026): what its pipeline consists of, and does."""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY
from functools import partial
from typing import Any, ClassVar

import jax

from fdiff.models import AutoencoderKLFlux2, ErnieImageTransformer2DModel, Mistral3Model
from fdiff.pipelines import flow, flux2, latent
from fdiff.pipelines.checks import asks_guidance
from fdiff.pipelines.denoise import guided
from fdiff.pipelines.flow import Read, Tokens, planned_as_trained
from fdiff.pipelines.flux2 import from_noise
from fdiff.pipelines.latent import pictures
from fdiff.pipelines.pipeline import DiffusionPipeline, Params
from fdiff.pipelines.requests import READ_AT_MOST, Latents, Negated, Patched, Pixels, Prompt, Scale, Texted
from fdiff.pipelines.task import Task, option
from fdiff.schedulers import Scheduler
from fdiff.tokenizers import PreTrainedTokenizerFast

EPSILON = 1e-5  # with which the autoencoder was trained, whatever its config says
LAYERS = (-2,)  # of the text encoder, whose hidden states are read
READ = 4096  # tokens


@dataclasses.dataclass(frozen=True)
class ErnieImageText(Texted, Negated, Patched, Latents):
    """Pictures from text."""

    _: KW_ONLY
    guidance_scale: Scale = option(4.0)
    max_sequence_length: int = option(READ, READ_AT_MOST)


def sized(vae: AutoencoderKLFlux2, height: Pixels, width: Pixels) -> latent.Sized:
    """Stage: the size in squares of latents. Raises ValueError for sizes that they do not divide."""
    return latent.Sized(flux2.sized(vae, None, height, width).size)


def encode_prompt(
    pipe: Any, params: Params, prompt: Prompt, negative_prompt: Prompt = None, *, max_sequence_length: int = READ
) -> tuple[Tokens, Tokens]:
    """What the text encoder makes of prompts and of negative ones: the prompt_embeds and negative_prompt_embeds.

    Args:
        params: with the text encoder's.
        prompt: a text or several.
        negative_prompt: one for all or one for each; nothing if not given.
        max_sequence_length: how many tokens are read.
    """
    return flow.both_sides(_encoder(pipe, params, max_sequence_length), prompt, negative_prompt)


def _encoder(pipe: Any, params: Params, length: int) -> flow.Encoder:
    return partial(flow.read_texts, pipe, params, length=length, layers=LAYERS)


@dataclasses.dataclass(frozen=True)
class ErnieImageDenoiser:
    """The transformer as (variables, x, t, tokens) -> out; two of the same one are one function to the compiler."""

    transformer: ErnieImageTransformer2DModel

    def __call__(self, variables: Any, x: jax.Array, t: jax.Array, tokens: Tokens) -> jax.Array:
        """What points from the picture to noise."""
        said: Any = self.transformer.apply(variables, x, t, tokens.embeddings, tokens.mask)
        return said


def read(
    pipe: Any, params: Params, transformer: ErnieImageTransformer2DModel, prompt: Prompt, prompt_embeds: Any,
    negative_prompt: Prompt, negative_prompt_embeds: Any, guidance_scale: Scale, num_images_per_prompt: int,
    max_sequence_length: int,
) -> Read:  # fmt: skip
    """Stage: the prompts. Raises ValueError for prompts that are none, or given twice."""
    found = flow.sides(
        _encoder(pipe, params, max_sequence_length), flow.given_tokens, asks_guidance(guidance_scale), prompt,
        prompt_embeds, negative_prompt, negative_prompt_embeds,
    )  # fmt: skip
    both = flow.repeated(flow.equally_long(found.positive, found.negative), num_images_per_prompt)
    return flow.asked(ErnieImageDenoiser(transformer), params, both, found.prompts)


def decode(pipe: Any, params: Params, latents: jax.Array, tile_size: int | None = None) -> jax.Array:
    """Pictures (b, H, W, 3) in [-1, 1], or nearly so, of latents; see `latent.decode`."""
    return latent.decode(pipe.replace(vae=pipe.vae.clone(batch_norm_eps=EPSILON)), params, latents, tile_size)


drawing = Task(
    ErnieImageText, (sized, planned_as_trained, read, from_noise, guided), pictures,
    "Draw pictures from text with ERNIE-Image.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ErnieImagePipeline(DiffusionPipeline):
    """Pictures from text with ERNIE-Image (Baidu 2026); a text encoder that is None needs prompt_embeds.

    pipe(params, "a red cat", key=jax.random.key(0))

    The prompt is read as it is: the model that rewrites prompts in some repositories is left out.
    """

    family: ClassVar[str] = "ERNIE-Image"

    scheduler: Scheduler
    vae: AutoencoderKLFlux2
    text_encoder: Mistral3Model | None
    tokenizer: PreTrainedTokenizerFast | None
    transformer: ErnieImageTransformer2DModel

    encode_prompt = encode_prompt
    decode = decode
    __call__, steps = drawing.methods()
