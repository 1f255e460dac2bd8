"""Sounds from text with Stable Audio Open."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import KW_ONLY
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff.models import AutoencoderOobleck, StableAudioDiTModel, StableAudioProjectionModel, T5EncoderModel
from fdiff.models.tiling import decode_in_parts
from fdiff.pipelines.checks import asks_guidance, finite, one_of
from fdiff.pipelines.denoise import guided
from fdiff.pipelines.draws import Seed, Wanted, draw_as_asked
from fdiff.pipelines.latent import Begun, first_latents
from fdiff.pipelines.pipeline import DiffusionPipeline, Params, applied, encoder_of, tree_of
from fdiff.pipelines.plans import planned
from fdiff.pipelines.requests import Prompt, Scale
from fdiff.pipelines.sound import Heard, check_seconds, places_of, sounds
from fdiff.pipelines.sound_text import (
    Read,
    SoundText,
    given,
    spread,
    tokenized,
)
from fdiff.pipelines.task import Key, Task, option
from fdiff.pipelines.text import listed
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler
from fdiff.windows import lay_windows, windowed


class StableAudioCondition(NamedTuple):
    """A text, and how long its sound is, (b, n, d); that length again, (b, 1, 2 d)."""

    text: jax.Array
    seconds: jax.Array


@dataclasses.dataclass(frozen=True)
class StableAudioText(SoundText):
    """Sounds from text, or from a sound and text."""

    _: KW_ONLY
    audio_end_in_s: float | None = option(
        None, "where the sound ends, in seconds; as late as the model can if not given", flag="seconds"
    )
    overlap_in_s: float | None = option(
        None, "by how many seconds the windows of the model's own length overlap, in which what is longer is made, "
        "each told where in the sound it lies; a quarter of that length if not given",
    )  # fmt: skip
    audio_start_in_s: float = option(0.0, "where it starts", flag="start-seconds")
    attention_mask: Any = option(None, "(b, n), 0 where prompt_embeds are of no token")
    negative_attention_mask: Any = option(None, "the same of negative_prompt_embeds")
    initial_audio_waveforms: Any = option(
        None, "(b, channels, n) or (b, n), a sound for each prompt; its latents are added to the first noise"
    )
    initial_audio_sampling_rate: int | None = option(None, "how many samples of it are a second", flag=None)


class Timed(NamedTuple):
    """What of the sound is heard, from when to when it is said to be, how long it is, and in which windows.

    interval: in seconds. length: in latents. overlap: of windows, in latents; None where one holds all.
    """

    heard: Heard
    interval: tuple[float, float]
    length: int
    overlap: int | None


def timed(
    vae: AutoencoderOobleck, transformer: StableAudioDiTModel, projection_model: StableAudioProjectionModel,
    audio_start_in_s: float, audio_end_in_s: float | None, overlap_in_s: float | None,
) -> Timed:  # fmt: skip
    """Stage: from when to when. Raises ValueError for an end before the start, or beyond what the model can be told."""
    own, rate = transformer.sample_size, vae.sampling_rate / vae.hop_length
    most = own / rate
    bounds = projection_model.min_value, projection_model.max_value
    start = check_seconds("audio_start_in_s", audio_start_in_s, *bounds)
    end = most if audio_end_in_s is None else check_seconds("audio_end_in_s", audio_end_in_s, start, bounds[1])
    # The latents begin at the start; where all fits, that much is cut off once more, as diffusers does.
    span = 0, round((end - start) * vae.sampling_rate)
    if end <= most:
        span = int(start * vae.sampling_rate), int(end * vae.sampling_rate)
    heard, length = Heard(span, vae.sampling_rate), math.ceil(round((end - start) * rate, 6))
    overlap = places_of(most / 4 if overlap_in_s is None else overlap_in_s, own, rate)
    return Timed(heard, (start, end), max(own, length), overlap if length > own else None)


def read(
    pipe: StableAudioPipeline, params: Params, interval: tuple[float, float], prompt: Prompt, negative_prompt: Prompt,
    prompt_embeds: Any, negative_prompt_embeds: Any, attention_mask: Any, negative_attention_mask: Any,
    guidance_scale: Scale, num_waveforms_per_prompt: int, length: int, overlap: int | None,
) -> Read:  # fmt: skip
    """Stage: what the transformer is told. Without a negative prompt, it moves away from zeros.

    Raises ValueError for prompts that are none, or given twice.
    """
    one_of(prompt, prompt_embeds)
    one_of(negative_prompt, negative_prompt_embeds, "negative_prompt")
    if prompt_embeds is None:
        prompt_embeds, attention_mask = _encoded(pipe, params, listed("prompt", prompt))
    network: Any = Partial(Teller(pipe.transformer), tree_of(params, "transformer"))
    tell: Callable[..., StableAudioCondition] = partial(_told, pipe, params, interval)
    if overlap is not None:
        own = pipe.transformer.sample_size
        network = windowed(network, own, overlap)
        places = lay_windows(length, own, overlap).starts * (pipe.vae.hop_length / pipe.vae.sampling_rate)
        tell = partial(_told_each, pipe, params, [(interval[0] + float(place), interval[1]) for place in places])
    positive = tell(given("prompt_embeds", prompt_embeds, 3), attention_mask)
    negative, count = None, len(positive.text)
    if asks_guidance(guidance_scale):
        negative = positive._replace(text=jnp.zeros_like(positive.text))
        if negative_prompt is not None:
            negative_prompt_embeds, mask = _encoded(pipe, params, listed("negative_prompt", negative_prompt, count))
            negative_prompt_embeds = jnp.where(mask[..., None] != 0, negative_prompt_embeds, 0)
            negative_attention_mask = mask
        if negative_prompt_embeds is not None:
            embeds = given("negative_prompt_embeds", negative_prompt_embeds, 3)
            negative = tell(embeds, negative_attention_mask)
            if negative.text.shape != positive.text.shape:
                raise ValueError(f"negative_prompt_embeds has shape {embeds.shape}; it must be that of prompt_embeds")
    both = spread((positive, negative), num_waveforms_per_prompt)
    return Read(network, both, count * num_waveforms_per_prompt)


@dataclasses.dataclass(frozen=True)
class Teller:
    """The transformer as (params, x, t, condition) -> out; two of the same one are one function to the compiler."""

    transformer: StableAudioDiTModel

    def __call__(self, params: Any, x: jax.Array, t: jax.Array, condition: StableAudioCondition) -> jax.Array:
        """What the transformer says of x."""
        said: Any = self.transformer.apply({"params": params}, x, t, condition.text, condition.seconds)
        return said


def _encoded(pipe: Any, params: Params, prompts: list[str]) -> tuple[jax.Array, np.ndarray]:
    encoder, tokenizer = encoder_of(pipe)
    tokens = tokenized(tokenizer, prompts)
    return applied(encoder, tree_of(params, "text_encoder"), *tokens), tokens.attention_mask


def _told_each(
    pipe: Any, params: Params, intervals: list[tuple[float, float]], embeds: jax.Array, mask: Any
) -> StableAudioCondition:
    """What the transformer is told in each window, leaves (b, k, ...)."""
    each = [_told(pipe, params, interval, embeds, mask) for interval in intervals]
    told: StableAudioCondition = jax.tree.map(lambda *leaves: jnp.stack(leaves, 1), *each)
    return told


def _told(
    pipe: Any, params: Params, interval: tuple[float, float], embeds: jax.Array, mask: Any
) -> StableAudioCondition:
    count = len(embeds)
    start, end = (jnp.full(count, second, jnp.float32) for second in interval)
    told = applied(pipe.projection_model, tree_of(params, "projection_model"), embeds, start, end)
    text = told.text
    if mask is not None:
        if np.shape(mask) != embeds.shape[:2]:
            raise ValueError(f"attention_mask has shape {np.shape(mask)}; it must be {embeds.shape[:2]}")
        text = text * jnp.asarray(mask, text.dtype)[..., None]
    seconds = jnp.concatenate([told.start, told.end], axis=2)
    return StableAudioCondition(jnp.concatenate([text, told.start, told.end], axis=1), seconds)


def begin(
    vae: AutoencoderOobleck, transformer: StableAudioDiTModel, params: Params, plan: Plan, key: Key, torch_seed: Seed,
    latents: Any, batch_size: int, initial_audio_waveforms: Any, initial_audio_sampling_rate: int | None, length: int,
) -> Begun:  # fmt: skip
    """Stage: begin with noise, and the latents of a sound where one is given.

    Raises ValueError for a sound of another sampling rate, or of numbers that do not fit.
    """
    shape = (batch_size, length, transformer.in_channels)
    if initial_audio_waveforms is None:
        return first_latents(plan, shape, latents, key, torch_seed, "float32")
    if initial_audio_sampling_rate != vae.sampling_rate:
        found, rate = initial_audio_sampling_rate, vae.sampling_rate
        raise ValueError(f"initial_audio_sampling_rate is {found!r}; it must be {rate}; see fdiff.audio.resample")
    samples = fitted(vae, initial_audio_waveforms, length * vae.hop_length)
    if batch_size % len(samples):
        raise ValueError(f"{len(samples)} sounds are given as initial_audio_waveforms for {batch_size}; pass one each")
    wanted = Wanted(shape[1:], None if latents is None else 0), Wanted(shape[1:], len(samples))
    draws = draw_as_asked(key, torch_seed, plan, shape, "float32", *wanted)
    noise = draws.arrays[0] if latents is None else finite("latents", jnp.asarray(latents, jnp.float32))
    times = batch_size // len(samples)
    mean, std = spread(encoded(vae, tree_of(params, "vae"), samples), times)
    return Begun(plan.start * noise + mean + std * draws.arrays[1], draws)


def fitted(vae: AutoencoderOobleck, waveforms: Any, length: int) -> jax.Array:
    """Sounds (b, channels, n) or (b, n) as samples (b, length, audio_channels): cut, or silent behind their end.

    One channel stands for two, and two are averaged to one. Raises ValueError for another number of channels.
    """
    array = np.asarray(waveforms, np.float32)
    array = array[:, None] if array.ndim == 2 else array
    if array.ndim == 3 and array.shape[1] == 1 and vae.audio_channels == 2:
        array = np.repeat(array, 2, axis=1)
    elif array.ndim == 3 and array.shape[1] == 2 and vae.audio_channels == 1:
        array = array.mean(1, keepdims=True)
    if array.ndim != 3 or array.shape[1] != vae.audio_channels or not array.size:
        wanted = f"(b, {vae.audio_channels}, n)"
        raise ValueError(f"initial_audio_waveforms has shape {np.shape(waveforms)}; it must be {wanted}")
    samples = finite("initial_audio_waveforms", array[..., :length])
    return jnp.asarray(np.pad(samples, ((0, 0), (0, 0), (0, length - samples.shape[2]))).swapaxes(1, 2))


def encoded(vae: AutoencoderOobleck, params: Any, samples: jax.Array) -> Any:
    """The distribution of the latents of samples (b, n, c)."""
    return _through(vae, "encode", params, samples)


def _run(vae: AutoencoderOobleck, method: str, params: Any, x: jax.Array) -> Any:
    return vae.apply({"params": params}, x, method=method)


_through = jax.jit(_run, static_argnums=(0, 1))
_decoded = jax.jit(decode_in_parts, static_argnums=0)

making = Task(StableAudioText, (planned, timed, read, begin, guided), sounds, "Make sounds from text.")


@dataclasses.dataclass(frozen=True)
class StableAudioPipeline(DiffusionPipeline):
    """Sounds from text, in stereo, as stabilityai/stable-audio-open-1.0 makes them (Evans 2024): 47 seconds, or longer
    ones in windows of that.
    """

    family: ClassVar[str] = "stable_audio"
    makes: ClassVar[str] = "sounds"

    vae: AutoencoderOobleck
    text_encoder: T5EncoderModel | None
    projection_model: StableAudioProjectionModel
    tokenizer: Any | None
    transformer: StableAudioDiTModel
    scheduler: Scheduler

    def decode(self, params: Params, x: jax.Array) -> jax.Array:
        """Samples (b, n, c), float32, of latents."""
        return _decoded(self.vae, tree_of(params, "vae"), x).astype(jnp.float32)

    __call__, steps = making.methods()
