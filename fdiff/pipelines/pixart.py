"""PixArt-alpha and PixArt-Sigma (Chen et al. 2023, 2024): what their pipelines consist of, and do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models import AutoencoderKL, PixArtTransformer2DModel, T5EncoderModel
from fdiff.pipelines import flow
from fdiff.pipelines.binned import Binned, decode, shaped
from fdiff.pipelines.checks import asks_guidance
from fdiff.pipelines.denoise import guided
from fdiff.pipelines.flow import Read, Tokens
from fdiff.pipelines.latent import factor_of, pictures
from fdiff.pipelines.pipeline import DiffusionPipeline, Params, applied, encoder_of, tree_of
from fdiff.pipelines.plans import planned
from fdiff.pipelines.requests import READ_AT_MOST, Latents, Negated, Prompt, Scale, Texted
from fdiff.pipelines.task import Task, option
from fdiff.pipelines.text import listed
from fdiff.pipelines.text_to_image import from_noise
from fdiff.schedulers import Scheduler
from fdiff.spacing import check_count
from fdiff.tokenizers import T5Tokenizer


@dataclasses.dataclass(frozen=True)
class PixArtText(Binned, Texted, Negated, Latents):
    """Pictures from text with PixArt-alpha."""

    _: KW_ONLY
    guidance_scale: Scale = option(4.5)
    num_inference_steps: int = option(20)
    max_sequence_length: int = option(120, READ_AT_MOST)


@dataclasses.dataclass(frozen=True)
class PixArtSigmaText(PixArtText):
    """Pictures from text with PixArt-Sigma."""

    _: KW_ONLY
    max_sequence_length: int = option(300)


@dataclasses.dataclass(frozen=True)
class PixArtDenoiser:
    """The transformer as (variables, x, t, text) -> out; two of the same one are one function to the compiler.

    factor: how many pixels a latent is wide.
    """

    transformer: PixArtTransformer2DModel
    factor: int

    def __call__(self, variables: Any, x: jax.Array, t: jax.Array, text: Tokens) -> jax.Array:
        """What the transformer says of x, without the variance that it may predict in further channels."""
        size = jnp.broadcast_to(jnp.float32(self.factor) * jnp.asarray(x.shape[1:3], jnp.float32), (len(x), 2))
        said: Any = self.transformer.apply(variables, x, text.embeddings, t, text.mask, size)
        return said[..., : x.shape[-1]]


def encode_prompt(pipe: Any, params: Params, prompt: Prompt, *, max_sequence_length: int | None = None) -> Tokens:
    """What T5 makes of prompts in small letters, (embeddings (b, n, d), mask (b, n)): the prompt_embeds of a call.

    Negative prompts are read alike, for its negative_prompt_embeds.

    Args:
        params: with the text encoder's.
        prompt: a text or several.
        max_sequence_length: how many tokens are read, as many as a call reads if not given.
    """
    length = pipe.tokens if max_sequence_length is None else max_sequence_length
    return _encoded(pipe, params, listed("prompt", prompt), length)


def _encoded(pipe: Any, params: Params, texts: Sequence[str], length: int) -> Tokens:
    check_count("max_sequence_length", length)
    t5, tokenizer = encoder_of(pipe)
    ids, mask = tokenizer.batch([text.lower().strip() for text in texts], length)
    return Tokens(applied(t5, tree_of(params, "text_encoder"), ids, mask), jnp.asarray(np.asarray(mask, np.int32)))


def read(
    pipe: Any, params: Params, transformer: PixArtTransformer2DModel, vae: AutoencoderKL, prompt: Prompt,
    prompt_embeds: Any, negative_prompt: Prompt, negative_prompt_embeds: Any, guidance_scale: Scale,
    num_images_per_prompt: int, max_sequence_length: int,
) -> Read:  # fmt: skip
    """Stage: the prompts. Raises ValueError for prompts that are none, or given twice."""

    def encode(texts: Sequence[str]) -> Tokens:
        return _encoded(pipe, params, texts, max_sequence_length)

    found = flow.sides(
        encode, flow.given_tokens, asks_guidance(guidance_scale), prompt, prompt_embeds, negative_prompt,
        negative_prompt_embeds,
    )  # fmt: skip
    flow.check_alike(found.positive, found.negative)
    sides = flow.repeated((found.positive, found.negative), num_images_per_prompt)
    return flow.asked(PixArtDenoiser(transformer, factor_of(vae)), params, sides, found.prompts)


STAGES = (shaped, planned, read, from_noise, guided)
drawing = Task(PixArtText, STAGES, pictures, "Draw pictures from text with PixArt-alpha.")
drawing_sigma = Task(PixArtSigmaText, STAGES, pictures, "Draw pictures from text with PixArt-Sigma.")


@dataclasses.dataclass(frozen=True)
class PixArt(DiffusionPipeline):
    """The components of PixArt; without its text encoder it needs prompt_embeds.

    tokens: how many of a prompt are read.
    """

    family: ClassVar[str] = "PixArt"
    tokens: ClassVar[int] = 120

    tokenizer: T5Tokenizer | None
    text_encoder: T5EncoderModel | None
    vae: AutoencoderKL
    transformer: PixArtTransformer2DModel
    scheduler: Scheduler

    encode_prompt = encode_prompt
    decode = decode


@dataclasses.dataclass(frozen=True)
class PixArtAlphaPipeline(PixArt):
    """Pictures from text with PixArt-alpha (Chen et al. 2023), a small transformer that T5 tells what to draw."""

    __call__, steps = drawing.methods()


@dataclasses.dataclass(frozen=True)
class PixArtSigmaPipeline(PixArt):
    """Pictures from text with PixArt-Sigma (Chen et al. 2024), which reads longer texts and draws larger pictures."""

    tokens: ClassVar[int] = 300

    __call__, steps = drawing_sigma.methods()
