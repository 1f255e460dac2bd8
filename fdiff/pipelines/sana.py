"""Sana and Sana 1.5 (Xie et al. 2024, 2025): what their pipeline consists of, and does."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models import AutoencoderDC, Gemma2Model, SanaTransformer2DModel
from fdiff.pipelines import flow
from fdiff.pipelines.binned import Binned, decode, shaped
from fdiff.pipelines.checks import asks_guidance
from fdiff.pipelines.denoise import guided
from fdiff.pipelines.flow import Read, Tokens
from fdiff.pipelines.latent import pictures
from fdiff.pipelines.pipeline import DiffusionPipeline, Params, encoder_of, tree_of
from fdiff.pipelines.plans import planned
from fdiff.pipelines.requests import Latents, Negated, Prompt, Scale, Texted
from fdiff.pipelines.task import Request, Task, option
from fdiff.pipelines.text import listed
from fdiff.pipelines.z_image import from_noise
from fdiff.schedulers import Scheduler
from fdiff.spacing import check_count
from fdiff.tokenizers import GemmaTokenizer

Instruction = Sequence[str] | None
# What the language model is told before a prompt (Xie et al. 2024, section 2.3), as the models were trained.
INSTRUCTION = (
    "Given a user prompt, generate an 'Enhanced prompt' that provides detailed visual descriptions suitable for image "
    "generation. Evaluate the level of detail in the user prompt:",
    "- If the prompt is simple, focus on adding specifics about colors, shapes, sizes, textures, and spatial "
    "relationships to create vivid and concrete scenes.",
    "- If the prompt is already detailed, refine and enhance the existing details slightly without overcomplicating.",
    "Here are examples of how to transform or refine prompts:",
    "- User Prompt: A cat sleeping -> Enhanced: A small, fluffy white cat curled up in a round shape, sleeping "
    "peacefully on a warm sunny windowsill, surrounded by pots of blooming red flowers.",
    "- User Prompt: A busy city street -> Enhanced: A bustling city street scene at dusk, featuring glowing street "
    "lamps, a diverse crowd of people in colorful clothing, and a double-decker bus passing by towering glass "
    "skyscrapers.",
    "Please generate only the enhanced description for the prompt below and avoid including any additional commentary "
    "or evaluations:",
    "User Prompt: ",
)
LENGTH = 300


@dataclasses.dataclass(frozen=True)
class Instructed(Request):
    """How a prompt is read."""

    _: KW_ONLY
    max_sequence_length: int = option(LENGTH, "how many tokens of a prompt are read, without those of the instruction")
    complex_human_instruction: Instruction = option(
        INSTRUCTION, "lines that the text encoder reads before a prompt, and that the network does not see; None: none",
        flag=None,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SanaText(Binned, Instructed, Texted, Negated, Latents):
    """Pictures from text."""

    _: KW_ONLY
    guidance_scale: Scale = option(4.5)
    num_inference_steps: int = option(20)


@dataclasses.dataclass(frozen=True)
class SanaDenoiser:
    """The transformer as (variables, x, t, text) -> out; two of the same one are one function to the compiler."""

    transformer: SanaTransformer2DModel

    def __call__(
        self, variables: Any, x: jax.Array, t: jax.Array, text: Tokens, samples: Sequence[jax.Array] = ()
    ) -> jax.Array:
        """What the transformer says of x, without the variance that it may predict in further channels.

        What a ControlNet says, `samples`, is added behind the second block and those after it.
        """
        t = jnp.asarray(t, jnp.float32) * self.transformer.timestep_scale
        said: Any = self.transformer.apply(variables, x, text.embeddings, t, text.mask, None, samples)
        return said[..., : x.shape[-1]]


def encode_prompt(
    pipe: Any, params: Params, prompt: Prompt, *, max_sequence_length: int = LENGTH,
    complex_human_instruction: Instruction = INSTRUCTION,
) -> Tokens:  # fmt: skip
    """What Gemma makes of prompts in small letters, (embeddings (b, n, d), mask (b, n)): the prompt_embeds of a call.

    Args:
        params: with the text encoder's.
        prompt: a text or several.
        max_sequence_length: how many tokens are read, without those of the instruction.
        complex_human_instruction: lines that are read before; None, as for negative_prompt_embeds: none.
    """
    return encoded(pipe, params, listed("prompt", prompt), max_sequence_length, complex_human_instruction)


def encoded(pipe: Any, params: Params, texts: Sequence[str], length: int, instruction: Instruction) -> Tokens:
    """What the text encoder makes of the first token of all and of those of the texts, at most `length` together.

    Raises ValueError for a length that is none, and a pipeline without a text encoder.
    """
    check_count("max_sequence_length", length)
    encoder, tokenizer = encoder_of(pipe)
    before = "\n".join(instruction or ())
    start = max(len(tokenizer.ids(before)), 1)  # one earlier than the text, as in training
    whole = [before + text.lower().strip() for text in texts]
    ids, mask = flow.without_padding(*tokenizer.batch(whole, start + length - 1))
    states = flow.states_of(encoder, (-1,), True, tree_of(params, "text_encoder"), ids, mask)
    seen = np.r_[0, start : ids.shape[1]]
    return Tokens(states[:, seen], jnp.asarray(mask[:, seen]))


def read(
    pipe: Any, params: Params, transformer: SanaTransformer2DModel, prompt: Prompt, prompt_embeds: Any,
    negative_prompt: Prompt, negative_prompt_embeds: Any, guidance_scale: Scale, num_images_per_prompt: int,
    max_sequence_length: int, complex_human_instruction: Instruction,
) -> Read:  # fmt: skip
    """Stage: the prompts. Raises ValueError for prompts that are none, or given twice."""

    def encode(texts: Sequence[str], instruction: Instruction = complex_human_instruction) -> Tokens:
        return encoded(pipe, params, texts, max_sequence_length, instruction)

    found = flow.sides(
        encode, flow.given_tokens, asks_guidance(guidance_scale), prompt, prompt_embeds, negative_prompt,
        negative_prompt_embeds, lambda texts: encode(texts, None),
    )  # fmt: skip
    sides = flow.repeated(flow.equally_long(found.positive, found.negative), num_images_per_prompt)
    return flow.asked(SanaDenoiser(transformer), params, sides, found.prompts)


drawing = Task(
    SanaText, (shaped, planned, read, from_noise, guided), pictures, "Draw pictures from text with Sana."
)


@dataclasses.dataclass(frozen=True)
class Sana(DiffusionPipeline):
    """The components of Sana; without its text encoder it needs prompt_embeds."""

    family: ClassVar[str] = "Sana"
    siblings: ClassVar[dict[str, str]] = {"SanaControlNetModel": "SanaControlNetPipeline"}

    tokenizer: GemmaTokenizer | None
    text_encoder: Gemma2Model | None
    vae: AutoencoderDC
    transformer: SanaTransformer2DModel
    scheduler: Scheduler

    encode_prompt = encode_prompt
    decode = decode


@dataclasses.dataclass(frozen=True)
class SanaPipeline(Sana):
    """Pictures from text with Sana, whose latents are 32 pixels wide and which a language model tells what to draw."""

    __call__, steps = drawing.methods()
