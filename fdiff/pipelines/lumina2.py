"""Lumina 2 (Qin et al. 2025): what its pipeline consists of, and does."""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import guidance
from fdiff.models import AutoencoderKL, Gemma2Model, Lumina2Transformer2DModel
from fdiff.pipelines import flow, latent
from fdiff.pipelines.checks import asks_guidance, check_scale
from fdiff.pipelines.denoise import Both, Network, guide
from fdiff.pipelines.flow import Read, T, Tokens, planned
from fdiff.pipelines.latent import factor_of, pictures
from fdiff.pipelines.pipeline import DiffusionPipeline, Params
from fdiff.pipelines.plans import count_rows
from fdiff.pipelines.requests import READ_AT_MOST, Latents, Negated, Patched, Pixels, Prompt, Scale, Texted
from fdiff.pipelines.task import Task, option
from fdiff.pipelines.text_to_image import from_noise
from fdiff.plan import Plan
from fdiff.rows import ByRow
from fdiff.schedulers import Scheduler
from fdiff.tokenizers import GemmaTokenizer

LAYERS = (-2,)  # of the text encoder, whose hidden states are read
READ = 256  # tokens
SYSTEM = (
    "You are an assistant designed to generate superior images with the superior degree of image-text alignment based "
    "on textual prompts or user prompts."
)
START = " <Prompt Start> "  # between that and the prompt


@dataclasses.dataclass(frozen=True)
class Lumina2Text(Texted, Negated, Patched, Latents):
    """Pictures from text."""

    _: KW_ONLY
    guidance_scale: Scale = option(4.0)
    num_inference_steps: int = option(30)
    max_sequence_length: int = option(READ, READ_AT_MOST)
    system_prompt: str | None = option(
        None, "what the text encoder reads before the prompt, and not before the negative one; the words of training "
        "if not given"
    )  # fmt: skip
    cfg_trunc_ratio: float = option(1.0, "guide only in this share of the run, from its start")
    cfg_normalization: bool = option(
        True, "whether each row of what guidance gives is as long as what the network says of the prompt", flag=None
    )
    guider: guidance.Guider | None = option(
        None, "in place of that another function of `fdiff.guidance`, its options bound: `norm_limited` is how the "
        "authors of Lumina 2 guide"
    )  # fmt: skip


def sized(vae: AutoencoderKL, transformer: Lumina2Transformer2DModel, height: Pixels, width: Pixels) -> latent.Sized:
    """Stage: the size in latents, that of the training if not given. Raises ValueError unless it is of whole patches.
    """
    own = transformer.sample_size * factor_of(vae)
    return flow.sized(vae, own if height is None else height, own if width is None else width)


def encode_prompt(
    pipe: Any, params: Params, prompt: Prompt, negative_prompt: Prompt = None, *, system_prompt: str | None = None,
    max_sequence_length: int = READ,
) -> tuple[Tokens, Tokens]:  # fmt: skip
    """What the text encoder makes of prompts and of negative ones: the prompt_embeds and negative_prompt_embeds.

    Args:
        params: with the text encoder's.
        prompt: a text or several.
        negative_prompt: one for all or one for each; nothing if not given.
        system_prompt: what is read before the prompt; the words of training if not given.
        max_sequence_length: how many tokens are read, those of system_prompt among them.
    """
    encode = _encoder(pipe, params, max_sequence_length)
    return flow.both_sides(_behind(encode, system_prompt), prompt, negative_prompt, encode)


def _encoder(pipe: Any, params: Params, length: int) -> flow.Encoder:
    return partial(flow.read_texts, pipe, params, length=length, layers=LAYERS)


def _behind(encode: flow.Encoder, system_prompt: str | None) -> flow.Encoder:
    """As `encode`, with the words of training, or others, before each text."""
    before = (SYSTEM if system_prompt is None else system_prompt) + START
    return lambda prompts: encode([before + prompt for prompt in prompts])


@dataclasses.dataclass(frozen=True)
class Lumina2Denoiser:
    """The transformer as (variables, x, t, tokens) -> out, of a time that falls to the picture, as schedulers have it.

    Two of the same transformer are one function to the compiler.
    """

    transformer: Lumina2Transformer2DModel

    def __call__(self, variables: Any, x: jax.Array, t: jax.Array, tokens: Tokens) -> jax.Array:
        """What points from the picture to noise."""
        said: Any = self.transformer.apply(variables, x, 1 - t / T, tokens.embeddings, tokens.mask)
        return -said


def read(
    pipe: Any, params: Params, transformer: Lumina2Transformer2DModel, prompt: Prompt, prompt_embeds: Any,
    negative_prompt: Prompt, negative_prompt_embeds: Any, guidance_scale: Scale, num_images_per_prompt: int,
    system_prompt: str | None, max_sequence_length: int,
) -> Read:  # fmt: skip
    """Stage: the prompts. Raises ValueError for prompts that are none, or given twice."""
    encode = _encoder(pipe, params, max_sequence_length)
    found = flow.sides(
        _behind(encode, system_prompt), flow.given_tokens, asks_guidance(guidance_scale), prompt, prompt_embeds,
        negative_prompt, negative_prompt_embeds, encode,
    )  # fmt: skip
    both = flow.repeated(flow.equally_long(found.positive, found.negative), num_images_per_prompt)
    return flow.asked(Lumina2Denoiser(transformer), params, both, found.prompts)


def row_lengths(x: jax.Array) -> jax.Array:
    """Of what a network says, (b, h, w, c): the norm of each row of each channel, (b, h, 1, c)."""
    return jnp.linalg.norm(x, axis=2, keepdims=True)


def guided(
    plan: Plan, x: jax.Array, denoiser: guidance.Conditional, both: Both, guidance_scale: Scale,
    cfg_trunc_ratio: float, cfg_normalization: bool, guider: guidance.Guider | None,
) -> Network:  # fmt: skip
    """Stage: the network, guided from the negative prompts to the others. Raises ValueError for numbers that are none.

    Row i of n, counted from 1, is guided where i / n is at most cfg_trunc_ratio.
    """
    check_scale("guidance_scale", guidance_scale, len(x))
    check_scale("cfg_trunc_ratio", cfg_trunc_ratio)
    if guider is None and cfg_normalization:
        guider = partial(guidance.as_long, length=row_lengths)
    on, n = None, count_rows(plan)
    if cfg_trunc_ratio < 1 and both[1] is not None:
        on = ByRow((np.arange(1, n + 1) / n <= cfg_trunc_ratio).astype(np.float32))
    return Network(guide(denoiser, *both, guidance_scale, on=on, guider=guider))


drawing = Task(
    Lumina2Text, (sized, planned, read, from_noise, guided), pictures, "Draw pictures from text with Lumina 2."
)


@dataclasses.dataclass(frozen=True)
class Lumina2Pipeline(DiffusionPipeline):
    """Pictures from text with Lumina 2 (Qin et al. 2025); a text encoder that is None needs prompt_embeds.

    pipe(params, "a red cat", key=jax.random.key(0))
    """

    family: ClassVar[str] = "Lumina 2"

    transformer: Lumina2Transformer2DModel
    scheduler: Scheduler
    vae: AutoencoderKL
    text_encoder: Gemma2Model | None
    tokenizer: GemmaTokenizer | None

    encode_prompt = encode_prompt
    decode = latent.decode
    __call__, steps = drawing.methods()
