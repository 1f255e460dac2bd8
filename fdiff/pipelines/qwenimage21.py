"""Qwen-Image-2.1 (Qwen Team 2026): what its pipeline consists of, and does."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from fdiff.models import AutoencoderKLQwenImage21, Qwen3VLModel, QwenImage21Transformer2DModel
from fdiff.pipelines import flow, latent
from fdiff.pipelines.checks import asks_guidance
from fdiff.pipelines.denoise import guided
from fdiff.pipelines.draws import Seed
from fdiff.pipelines.flow import Read, T, Tokens
from fdiff.pipelines.latent import Begun, check_multiples, first_latents, pictures
from fdiff.pipelines.pipeline import DiffusionPipeline, Params, encoder_of
from fdiff.pipelines.plans import Planned, flow_plan, linear_mu
from fdiff.pipelines.requests import READ_AT_MOST, Latents, Negated, Pixels, Prompt, Scale, Size, Texted
from fdiff.pipelines.task import Key, Task, option
from fdiff.pipelines.text import Counts
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler
from fdiff.schedulers.flow import ShiftedFlowScheduler
from fdiff.tokenizers import Qwen2Tokenizer

PIXELS, MULTIPLE = 1024, 2  # what a side is if it is not given; latents of which it is a multiple
READ = 4096  # tokens
SYSTEM = "<|im_start|>system\nComprehend and analyze the provided prompt.<|im_end|>\n"
ASKED = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


@dataclasses.dataclass(frozen=True)
class QwenImage21Text(Texted, Negated, Latents):
    """Pictures from text."""

    _: KW_ONLY
    height: Pixels = option(None, "in pixels, a multiple of 32; 1024 if not given")
    width: Pixels = option(None, "in pixels, a multiple of 32; 1024 if not given")
    guidance_scale: Scale = option(
        1.0, "how far to move from the negative prompt, where there is one; at most 1 is not at all, and costs half. "
        "The model is meant to be asked once"
    )  # fmt: skip
    num_inference_steps: int = option(40, "network calls, where the checkpoint has no sample_sigmas")
    max_sequence_length: int = option(READ, READ_AT_MOST)


def sized(vae: AutoencoderKLQwenImage21, height: Pixels, width: Pixels) -> latent.Sized:
    """Stage: the size in latents. Raises ValueError unless it is one of pairs of them."""
    factor = 2 ** (len(vae.dim_mult) - 1)
    pixels = [PIXELS if side is None else side for side in (height, width)]
    check_multiples(pixels[0], pixels[1], MULTIPLE * factor)
    return latent.Sized((pixels[0] // factor, pixels[1] // factor))


def planned(
    pipe: QwenImage21Pipeline, scheduler: Scheduler, num_inference_steps: int, plan: Plan | None, size: Size
) -> Planned:
    """Stage: the table, shifted by the number of latents, of the levels that the checkpoint has, if any."""
    mu = linear_mu(scheduler, size[0] * size[1])
    if pipe.sample_sigmas is not None and plan is None and isinstance(scheduler, ShiftedFlowScheduler):
        options: dict[str, Any] = {"mu": mu} if scheduler.use_dynamic_shifting else {}
        plan = scheduler.plan(len(pipe.sample_sigmas), sigmas=pipe.sample_sigmas, **options)
    return Planned(flow_plan(scheduler, num_inference_steps, plan, mu))


def encode_prompt(
    pipe: Any, params: Params, prompt: Prompt, negative_prompt: Prompt = None, *, max_sequence_length: int = READ
) -> tuple[Tokens, Tokens]:
    """What the text encoder makes of prompts and of negative ones: the prompt_embeds and negative_prompt_embeds.

    Args:
        params: with the text encoder's.
        prompt: a text or several.
        negative_prompt: one for all or one for each; nothing if not given.
        max_sequence_length: how many tokens are read, those of the template among them.
    """
    return flow.both_sides(_encoder(pipe, params, max_sequence_length), prompt, negative_prompt)


def _encoder(pipe: Any, params: Params, length: int) -> flow.Encoder:
    def encode(prompts: Sequence[str]) -> Tokens:
        _, tokenizer = encoder_of(pipe, tokenizer="processor")
        texts = [SYSTEM + ASKED.format(prompt or " ") for prompt in prompts]
        found = flow.read_texts(
            pipe, params, texts, length, layers=(-1,), norm_last=False, tokenizer="processor"
        )
        start = len(tokenizer.ids(SYSTEM))
        return Tokens(found.embeddings[:, start:], found.mask[:, start:])

    return encode


class QwenImage21Condition(NamedTuple):
    """A text, (b, n, d), which of it is there, (b, n), and how long the longest text of the batch is, (b,)."""

    text: jax.Array
    mask: jax.Array
    length: jax.Array


@dataclasses.dataclass(frozen=True)
class QwenImage21Denoiser:
    """The transformer as (variables, x, t, condition) -> out; two of the same one are one function to the compiler."""

    transformer: QwenImage21Transformer2DModel

    def __call__(self, variables: Any, x: jax.Array, t: jax.Array, told: QwenImage21Condition) -> jax.Array:
        """What points from the picture to noise."""
        said: Any = self.transformer.apply(variables, x, t / T, *told)
        return said


def read(
    pipe: Any, params: Params, transformer: QwenImage21Transformer2DModel, prompt: Prompt, prompt_embeds: Any,
    negative_prompt: Prompt, negative_prompt_embeds: Any, guidance_scale: Scale, num_images_per_prompt: int,
    max_sequence_length: int,
) -> Read:  # fmt: skip
    """Stage: the prompts. Raises ValueError for prompts that are none, or given twice."""
    negates = negative_prompt is not None or negative_prompt_embeds is not None
    found = flow.sides(
        _encoder(pipe, params, max_sequence_length), flow.given_tokens, asks_guidance(guidance_scale) and negates,
        prompt, prompt_embeds, negative_prompt, negative_prompt_embeds,
    )  # fmt: skip
    sides = flow.repeated(flow.equally_long(found.positive, found.negative), num_images_per_prompt)
    return flow.asked(QwenImage21Denoiser(transformer), params, sides, found.prompts, condition_of)


def condition_of(tokens: Tokens) -> QwenImage21Condition:
    """A batch of texts, behind the longest of which the pictures begin."""
    longest = tokens.mask.sum(-1).max()
    return QwenImage21Condition(tokens.embeddings, tokens.mask, jnp.full(len(tokens.mask), longest, jnp.float32))


def from_noise(
    vae: AutoencoderKLQwenImage21, plan: Plan, size: Size, texts: Counts, latents: Any, key: Key, torch_seed: Seed
) -> Begun:
    """Stage: begin with noise alone, the user's or drawn."""
    return first_latents(plan, (texts.batch_size, *size, vae.z_dim), latents, key, torch_seed, texts.dtype)


drawing = Task(
    QwenImage21Text, (sized, planned, read, from_noise, guided), pictures,
    "Draw pictures from text with Qwen-Image-2.1.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class QwenImage21Pipeline(DiffusionPipeline):
    """Pictures from text with Qwen-Image-2.1 (Qwen Team 2026), with a fourth channel, their transparency.

        pipe(params, "a red cat", key=jax.random.key(0))

    A text encoder that is None needs prompt_embeds. `processor` is its tokenizer: pictures to keep to, which it would
    read too, are not taken. Where a checkpoint has sample_sigmas, these are the levels of a run.
    """

    family: ClassVar[str] = "Qwen-Image-2.1"

    scheduler: Scheduler
    vae: AutoencoderKLQwenImage21
    text_encoder: Qwen3VLModel | None
    processor: Qwen2Tokenizer | None
    transformer: QwenImage21Transformer2DModel
    sample_sigmas: tuple[float, ...] | None = None

    encode_prompt = encode_prompt
    decode = latent.decode
    __call__, steps = drawing.methods()
