"""Chroma (Rock 2025): what its pipelines consist of, and do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models import AutoencoderKL, ChromaTransformer2DModel, T5EncoderModel
from fdiff.models.layers.patches import packed, unpacked
from fdiff.pipelines import flow, latent
from fdiff.pipelines.checks import asks_guidance
from fdiff.pipelines.denoise import guided
from fdiff.pipelines.flow import PATCH, Read, T, Tokens, cropped, from_masked, pictured, places_of, planned, sized
from fdiff.pipelines.image_to_image import from_picture
from fdiff.pipelines.inpaint import masked
from fdiff.pipelines.latent import pictures
from fdiff.pipelines.pipeline import DiffusionPipeline, Params, applied, encoder_of, tree_of
from fdiff.pipelines.requests import (
    READ_AT_MOST,
    Cropping,
    Latents,
    Negated,
    Patched,
    Prompt,
    Redrawn,
    Repainted,
    RepatchedPicture,
    Scale,
    Texted,
)
from fdiff.pipelines.task import Task, option
from fdiff.pipelines.text import listed
from fdiff.pipelines.text_to_image import from_noise
from fdiff.schedulers import Scheduler
from fdiff.spacing import check_count
from fdiff.tokenizers import T5Tokenizer


@dataclasses.dataclass(frozen=True)
class Asked(Texted, Negated):
    """What Chroma can be asked."""

    _: KW_ONLY
    guidance_scale: Scale = option(5.0)
    num_inference_steps: int = option(35)
    max_sequence_length: int = option(512, READ_AT_MOST)
    hides_padding: bool = option(
        False, "hide from all what lies behind the end of a prompt, as in training, in place of adding 1 to the scores "
        "of attention elsewhere, as diffusers does", flag="hide-padding",
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ChromaText(Asked, Patched, Latents):
    """Pictures from text."""


@dataclasses.dataclass(frozen=True)
class ChromaPicture(Redrawn, Asked, RepatchedPicture):
    """Pictures from a picture and text."""

    _: KW_ONLY
    strength: float = option(0.9)


@dataclasses.dataclass(frozen=True)
class ChromaMasked(Repainted, Cropping, Asked, RepatchedPicture, Latents):
    """A part of a picture painted anew."""

    _: KW_ONLY
    strength: float = option(0.6)
    guidance_scale: Scale = option(7.0)
    num_inference_steps: int = option(28)
    max_sequence_length: int = option(256)


class ChromaCondition(NamedTuple):
    """What the network is told of a batch; leaves are (b, ...)."""

    text: jax.Array  # (b, m, d), as T5 reads it
    mask: jax.Array  # (b, m), False or 0 behind the first token that is none


@dataclasses.dataclass(frozen=True)
class ChromaDenoiser:
    """The transformer as (variables, x, t, condition) -> out; two of the same one are one function to the compiler."""

    transformer: ChromaTransformer2DModel

    def __call__(self, variables: Any, x: jax.Array, t: jax.Array, told: ChromaCondition) -> jax.Array:
        """What points from the picture to noise."""
        height, width = x.shape[1:3]
        patches, places = packed(x, PATCH), places_of(0, (height // PATCH, width // PATCH))
        seen = jnp.ones(patches.shape[:2], told.mask.dtype)
        words = np.zeros((told.text.shape[1], 3), np.float32)
        said: Any = self.transformer.apply(
            variables, patches, told.text, t / T, places, words, jnp.concatenate([told.mask, seen], axis=1)
        )
        return unpacked(said, height, width, PATCH)


def encode_prompt(pipe: Any, params: Params, prompt: Prompt, *, max_sequence_length: int = 512) -> Tokens:
    """What T5 makes of prompts, (embeddings (b, n, d), mask (b, n)): the prompt_embeds of a call.

    The mask is 1 for all tokens of a prompt and one of those behind it. Negative prompts are read alike, for its
    negative_prompt_embeds.

    Args:
        params: with the text encoder's.
        prompt: a text or several.
        max_sequence_length: how many tokens are read.
    """
    return _encoded(pipe, params, listed("prompt", prompt), max_sequence_length)


def _encoded(pipe: Any, params: Params, texts: Sequence[str], length: int) -> Tokens:
    check_count("max_sequence_length", length)
    t5, tokenizer = encoder_of(pipe)
    ids, mask = tokenizer.batch(texts, length)
    embeddings = applied(t5, tree_of(params, "text_encoder"), ids, mask)
    ends = mask.sum(1, keepdims=True)  # the token behind it is kept, for attention that finds nothing to look at
    return Tokens(embeddings, jnp.asarray(np.arange(length) <= ends, jnp.int32))


def read(
    pipe: Any, params: Params, transformer: ChromaTransformer2DModel, prompt: Prompt, prompt_embeds: Any,
    negative_prompt: Prompt, negative_prompt_embeds: Any, guidance_scale: Scale, num_images_per_prompt: int,
    max_sequence_length: int, hides_padding: bool,
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
    kind = bool if hides_padding else np.float32
    return flow.asked(
        ChromaDenoiser(transformer), params, sides, found.prompts,
        lambda side: ChromaCondition(side.embeddings, side.mask.astype(kind)),
    )  # fmt: skip


drawing = Task(
    ChromaText, (sized, planned, read, from_noise, guided), pictures, "Draw pictures from text with Chroma."
)
redrawing = Task(
    ChromaPicture, (pictured, planned, read, from_picture, guided), pictures,
    "Redraw a picture as a text says (SDEdit, Meng et al. 2022).",
)  # fmt: skip
inpainting = Task(
    ChromaMasked, (cropped, pictured, masked, planned, read, from_masked, guided), pictures,
    "Paint a part of a picture anew.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Chroma(DiffusionPipeline):
    """The components of Chroma; without its text encoder it needs prompt_embeds."""

    family: ClassVar[str] = "Chroma"
    siblings: ClassVar[dict[str, str]] = {"image": "ChromaImg2ImgPipeline", "mask_image": "ChromaInpaintPipeline"}

    scheduler: Scheduler
    vae: AutoencoderKL
    text_encoder: T5EncoderModel | None
    tokenizer: T5Tokenizer | None
    transformer: ChromaTransformer2DModel

    encode_prompt = encode_prompt
    decode = latent.decode


@dataclasses.dataclass(frozen=True)
class ChromaPipeline(Chroma):
    """Pictures from text with Chroma (Rock 2025), an open model made of FLUX.1 schnell that is guided for real."""

    __call__, steps = drawing.methods()


@dataclasses.dataclass(frozen=True)
class ChromaImg2ImgPipeline(Chroma):
    """Pictures from a picture and text with Chroma (SDEdit, Meng et al. 2022)."""

    __call__, steps = redrawing.methods()


@dataclasses.dataclass(frozen=True)
class ChromaInpaintPipeline(Chroma):
    """A part of a picture painted anew with Chroma."""

    __call__, steps = inpainting.methods()
