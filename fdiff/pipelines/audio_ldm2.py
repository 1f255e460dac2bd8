"""Sounds from text with AudioLDM 2: two texts are read, and a language model goes on with them."""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff.models import (
    AudioLDM2ProjectionModel,
    AudioLDM2UNet2DConditionModel,
    AutoencoderKL,
    ClapModel,
    GPT2Model,
    SpeechT5HifiGan,
    T5EncoderModel,
)
from fdiff.pipelines.audio_ldm import SpectralText, begin, heard_as, in_windows, sized, spoken
from fdiff.pipelines.checks import asks_guidance, one_of
from fdiff.pipelines.denoise import guided
from fdiff.pipelines.pipeline import DiffusionPipeline, Params, applied, encoder_of, tree_of
from fdiff.pipelines.plans import planned
from fdiff.pipelines.requests import Prompt, Scale
from fdiff.pipelines.sound import sounds
from fdiff.pipelines.sound_text import (
    Read,
    given,
    spread,
    tokenized,
)
from fdiff.pipelines.task import Task, option
from fdiff.pipelines.text import listed
from fdiff.schedulers import Scheduler


class AudioLDM2Condition(NamedTuple):
    """What the language model made, (b, 8, d), a text (b, n, e), and 1 where there is some, (b, n)."""

    generated: jax.Array
    text: jax.Array
    mask: jax.Array


@dataclasses.dataclass(frozen=True)
class AudioLDM2Text(SpectralText):
    """Sounds from text."""

    _: KW_ONLY
    num_inference_steps: int = option(200)
    guidance_scale: Scale = option(3.5)
    prompt_embeds: Any = option(None, "an AudioLDM2Condition from `encode_prompt`, in place of a prompt")
    negative_prompt_embeds: Any = option(None, "the same, in place of a negative prompt")


def encode_prompt(
    pipe: AudioLDM2Pipeline, params: Params, prompt: Prompt, negative_prompt: Prompt = None
) -> tuple[AudioLDM2Condition, AudioLDM2Condition]:
    """What the U-Net is told of prompts and of negative ones: the prompt_embeds and negative_prompt_embeds of a call.

    Raises ValueError where the pipeline has no text encoders.
    """
    prompts = listed("prompt", prompt)
    positive = _encoded(pipe, params, prompts)
    length = positive.text.shape[1]
    return positive, _encoded(pipe, params, listed("negative_prompt", negative_prompt or "", len(prompts)), length)


def _encoded(pipe: Any, params: Params, prompts: list[str], length: int | None = None) -> AudioLDM2Condition:
    """Texts of so many tokens, as many as the longest one has if not given."""
    encoder, tokenizer = encoder_of(pipe, "text_encoder_2", "tokenizer_2")
    ids, mask = tokenized(tokenizer, prompts, length)
    longest = int(mask.sum(1).max()) if length is None else length
    ids, mask = ids[:, :longest], mask[:, :longest]
    text = applied(encoder, tree_of(params, "text_encoder_2"), ids, mask)
    heard = heard_as(pipe, params, prompts)[:, None]
    ones = np.ones(heard.shape[:2], np.int32)
    told = applied(pipe.projection_model, tree_of(params, "projection_model"), heard, ones, text, mask)
    model = pipe.language_model
    if model is None:
        raise ValueError("AudioLDM2Pipeline has no language_model; pass prompt_embeds, and negative_prompt_embeds")
    generated = continued(model, tree_of(params, "language_model"), *told, model.max_new_tokens)
    return AudioLDM2Condition(generated, text, jnp.asarray(mask))


@partial(jax.jit, static_argnums=(0, 4))
def continued(model: GPT2Model, params: Any, states: jax.Array, mask: jax.Array, count: int) -> jax.Array:
    """What a language model goes on with, `count` vectors (b, count, d), each read as the next one's predecessor."""
    length = states.shape[1]
    states = jnp.pad(states, ((0, 0), (0, count), (0, 0)))
    mask = jnp.pad(mask, ((0, 0), (0, count)), constant_values=True)

    def step(i: jax.Array, states: jax.Array) -> jax.Array:
        made: Any = model.apply({"params": params}, states, mask)
        last = jax.lax.dynamic_slice_in_dim(made, length + i - 1, 1, axis=1)
        return jax.lax.dynamic_update_slice_in_dim(states, last.astype(states.dtype), length + i, axis=1)

    return jax.lax.fori_loop(0, count, step, states)[:, length:]


def read(
    pipe: AudioLDM2Pipeline, params: Params, prompt: Prompt, negative_prompt: Prompt, prompt_embeds: Any,
    negative_prompt_embeds: Any, guidance_scale: Scale, num_waveforms_per_prompt: int,
) -> Read:  # fmt: skip
    """Stage: what the U-Net is told. Raises ValueError for prompts that are none, or given twice."""
    one_of(prompt, prompt_embeds)
    one_of(negative_prompt, negative_prompt_embeds, "negative_prompt")
    if prompt_embeds is None:
        prompt_embeds = _encoded(pipe, params, listed("prompt", prompt))
    positive = _checked("prompt_embeds", prompt_embeds)
    negative, count = None, len(positive.text)
    if asks_guidance(guidance_scale):
        if negative_prompt_embeds is None:
            against = listed("negative_prompt", negative_prompt or "", count)
            negative_prompt_embeds = _encoded(pipe, params, against, positive.text.shape[1])
        negative = _checked("negative_prompt_embeds", negative_prompt_embeds)
        shapes = [[leaf.shape for leaf in one] for one in (positive, negative)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"negative_prompt_embeds has the shapes {shapes[1]}; they must be {shapes[0]}")
    both = spread((positive, negative), num_waveforms_per_prompt)
    return Read(Partial(Teller(pipe.unet), tree_of(params, "unet")), both, count * num_waveforms_per_prompt)


def _checked(name: str, told: Any) -> AudioLDM2Condition:
    if not isinstance(told, tuple) or len(told) != 3:
        raise ValueError(f"{name} must be three arrays, an AudioLDM2Condition; see encode_prompt")
    return AudioLDM2Condition(given(name, told[0], 3), given(name, told[1], 3), given(name, told[2], 2))


@dataclasses.dataclass(frozen=True)
class Teller:
    """The U-Net as (params, x, t, condition) -> out; two of the same one are one function to the compiler."""

    unet: AudioLDM2UNet2DConditionModel

    def __call__(self, params: Any, x: jax.Array, t: jax.Array, told: AudioLDM2Condition) -> jax.Array:
        """What the U-Net says of x."""
        said: Any = self.unet.apply({"params": params}, x, t, told.generated, told.text, told.mask)
        return said


making = Task(AudioLDM2Text, (planned, sized, read, begin, in_windows, guided), sounds, "Make sounds from text.")


@dataclasses.dataclass(frozen=True)
class AudioLDM2Pipeline(DiffusionPipeline):
    """Sounds from text, of one channel, as cvssp/audioldm2 makes them (Liu et al. 2024)."""

    family: ClassVar[str] = "audio_ldm2"
    makes: ClassVar[str] = "sounds"

    vae: AutoencoderKL
    text_encoder: ClapModel | None
    text_encoder_2: T5EncoderModel | None
    projection_model: AudioLDM2ProjectionModel
    language_model: GPT2Model | None
    tokenizer: Any | None
    tokenizer_2: Any | None
    unet: AudioLDM2UNet2DConditionModel
    scheduler: Scheduler
    vocoder: SpeechT5HifiGan

    encode_prompt = encode_prompt
    decode = spoken
    __call__, steps = making.methods()
