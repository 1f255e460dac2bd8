"""FLUX.2 dev (Black Forest Labs 2025), which is told the guidance scale, and reads texts with Mistral 3."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from fdiff.models import AutoencoderKLFlux2, Flux2Transformer2DModel, Mistral3Model
from fdiff.pipelines import flow, latent
from fdiff.pipelines.checks import check_scale
from fdiff.pipelines.denoise import guided
from fdiff.pipelines.flow import Read, Tokens
from fdiff.pipelines.flux2 import KEPT, KleinCondition, KleinDenoiser, from_noise, kept_of, planned, sized
from fdiff.pipelines.latent import pictures
from fdiff.pipelines.pipeline import DiffusionPipeline, Params
from fdiff.pipelines.requests import READ_AT_MOST, Latents, Patched, Prompt, References, Scale, Texted
from fdiff.pipelines.task import Task, option
from fdiff.schedulers import Scheduler
from fdiff.tokenizers import PreTrainedTokenizerFast

LAYERS = (10, 20, 30)  # of the text encoder, whose hidden states lie side by side
ASKED = (  # what the text encoder was told to do in training, and in which words
    "[SYSTEM_PROMPT]You are an AI that reasons about image descriptions. You give structured responses focusing on "
    "object relationships, object\nattribution and actions without speculation.[/SYSTEM_PROMPT][INST]{}[/INST]"
)
PICTURE = "[IMG]"  # stands for a picture in what the text encoder reads, and so is no part of a prompt


@dataclasses.dataclass(frozen=True)
class Flux2Text(Texted, Patched, Latents):
    """Pictures from text, and from pictures to keep to."""

    image: References = option(None, KEPT)
    _: KW_ONLY
    guidance_scale: Scale = option(4.0, "how closely to keep to the prompt, which the network is told")
    max_sequence_length: int = option(512, READ_AT_MOST)
    text_encoder_out_layers: tuple[int, ...] = option(LAYERS, "which hidden states of the text encoder are read")


def encode_prompt(
    pipe: Any, params: Params, prompt: Prompt, *, max_sequence_length: int = 512,
    text_encoder_out_layers: tuple[int, ...] = LAYERS,
) -> jax.Array:  # fmt: skip
    """What the text encoder makes of prompts, the prompt_embeds: (b, max_sequence_length, 3 d).

    Args:
        params: with the text encoder's.
        prompt: a text or several.
        max_sequence_length: how many tokens are read, those of the template among them; the network sees the padding
            before a text, too.
        text_encoder_out_layers: which hidden states are read.
    """
    return _side(pipe, params, prompt, None, max_sequence_length, text_encoder_out_layers).positive.embeddings


def _side(
    pipe: Any, params: Params, prompt: Prompt, embeds: Any, length: int, layers: tuple[int, ...]
) -> flow.Sides:
    def encode(prompts: Sequence[str]) -> Tokens:
        texts = [ASKED.format(prompt.replace(PICTURE, "")) for prompt in prompts]
        return flow.read_texts(pipe, params, texts, length, layers=tuple(layers), whole=True)

    return flow.sides(encode, flow.given_tokens, False, prompt, embeds)


def read(
    pipe: Flux2Pipeline, params: Params, references: tuple[Any, ...], prompt: Prompt, prompt_embeds: Any,
    guidance_scale: Scale, num_images_per_prompt: int, max_sequence_length: int,
    text_encoder_out_layers: tuple[int, ...],
) -> Read:  # fmt: skip
    """Stage: the prompts, and the latents of pictures to keep to. Raises ValueError for prompts that are none."""
    found = _side(pipe, params, prompt, prompt_embeds, max_sequence_length, text_encoder_out_layers)
    sides = flow.repeated((found.positive, None), num_images_per_prompt)
    count = len(sides[0].embeddings)
    check_scale("guidance_scale", guidance_scale, count)
    kept, sizes = kept_of(pipe.vae, params, references, count)
    scale = jnp.broadcast_to(jnp.asarray(guidance_scale, jnp.float32), (count,))
    return flow.asked(
        KleinDenoiser(pipe.transformer, sizes), params, sides, found.prompts,
        lambda side: KleinCondition(side.embeddings, kept, scale),
    )  # fmt: skip


drawing = Task(
    Flux2Text, (sized, planned, read, from_noise, guided), pictures,
    "Draw pictures from text, and from pictures to keep to, with FLUX.2 dev.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Flux2Pipeline(DiffusionPipeline):
    """Pictures from text, and from pictures to keep to, with FLUX.2 dev (Black Forest Labs 2025).

        pipe(params, "a red cat", key=jax.random.key(0))

    A text encoder that is None needs prompt_embeds; it has three quarters as many parameters as the transformer.
    """

    family: ClassVar[str] = "FLUX.2 dev"

    scheduler: Scheduler
    vae: AutoencoderKLFlux2
    text_encoder: Mistral3Model | None
    tokenizer: PreTrainedTokenizerFast | None
    transformer: Flux2Transformer2DModel

    encode_prompt = encode_prompt
    decode = latent.decode
    __call__, steps = drawing.methods()
