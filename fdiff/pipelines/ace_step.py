"""Music from text and lyrics with ACE-Step 1.5, alone or made of a piece of music that is there."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import KW_ONLY
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff import guidance
from fdiff.models import AceStepConditionEncoder, AceStepTransformer1DModel, AutoencoderOobleck, Qwen3ForCausalLM
from fdiff.models.tiling import decode_in_parts
from fdiff.pipelines.ace_step_text import AceStepText, encode_ids, encode_prompt, instruction_of
from fdiff.pipelines.checks import asks_guidance, finite, one_of
from fdiff.pipelines.draws import Draws, Seed, Wanted, draw_as_asked
from fdiff.pipelines.latent import checked_latents
from fdiff.pipelines.pipeline import DiffusionPipeline, Params, applied, tree_of
from fdiff.pipelines.plans import Planned, make_plan
from fdiff.pipelines.requests import Prompt, Scale
from fdiff.pipelines.sound import Audio, Heard, Sound, check_seconds, samples_of, sounds
from fdiff.pipelines.sound_text import spread
from fdiff.pipelines.stable_audio import encoded
from fdiff.pipelines.task import Key, Task, option
from fdiff.plan import Plan
from fdiff.rows import ByRow
from fdiff.schedulers import Scheduler
from fdiff.spacing import check_count

SECONDS = 60.0  # of music where nobody says how long
TIMBRE = 30  # seconds of a sound whose timbre is heard
LOUDEST = 10 ** (-1 / 20)  # -1 dB
MOMENTUM, LIMIT = -0.75, 2.5  # of the guidance that the models were made for


@dataclasses.dataclass(frozen=True)
class Music(Sound):
    """Music from text and lyrics."""

    prompt: Prompt = option(None, "what is to be heard, a text or several", flag=None)
    _: KW_ONLY
    lyrics: Prompt = option("", "what is sung, with marks such as [verse] and [chorus], one for all or one for each")
    audio_duration: float | None = option(
        None, "how many seconds long; as long as src_audio, or 60, if not given", flag="seconds"
    )
    vocal_language: Prompt = option("en", "the language of the lyrics, such as en, zh or ja")
    bpm: int | None = option(None, "beats a minute; the model's choice if not given")
    keyscale: str | None = option(None, "such as C major; the model's choice if not given")
    timesignature: str | None = option(None, "such as 4 of 4/4; the model's choice if not given")
    num_inference_steps: int = option(8)
    guidance_scale: Scale = option(
        7.0, "how closely to keep to the prompt; at most 1 is none, and costs half; a turbo model has none"
    )
    cfg_interval_start: float = option(0.0, "guide from this share of the noise being gone", flag=None)
    cfg_interval_end: float = option(1.0, "guide up to this share of the noise being gone", flag=None)
    shift: float = option(3.0, "how much more steps go to high noise, 1 being none; not with a plan")
    task_type: str = option("text2music", "text2music, repaint, cover, extract, lego or complete", flag="task-type")
    instruction: str | None = option(None, "what the model is to do, in place of what suits the task", flag=None)
    track_name: str | None = option(None, "the track to extract, or to add (lego), such as vocals", flag="track")
    complete_track_classes: Sequence[str] = option((), "the tracks to complete with, such as drums", flag=None)
    src_audio: Audio = option(
        None, "the music to work on: a file, a fdiff.audio.Sound, or (channels, n) at the model's sampling rate",
        flag="audio",
    )
    reference_audio: Audio = option(None, "music whose timbre to take, given likewise", flag="reference-audio")
    repainting_start: float = option(0.0, "seconds of src_audio before what is made anew", flag="repaint-start")
    repainting_end: float | None = option(
        None, "where what is made anew ends, in seconds; at its end if not given", flag="repaint-end"
    )
    num_waveforms_per_prompt: int = option(1, "sounds of each prompt, side by side", flag="num-images")
    prompt_embeds: AceStepText | None = option(None, "from `encode_prompt` or `encode_ids`, in place of the texts")
    latents: Any = option(None, "(b, n, c) standard normal numbers to begin from, in place of a draw")


class AceStepCondition(NamedTuple):
    """Texts, lyrics and timbre (b, m, d); the latents to keep or change, and 1 where they are changed (b, n, c)."""

    told: jax.Array
    context: jax.Array


def planned(scheduler: Scheduler, num_inference_steps: int, shift: float, plan: Plan | None) -> Planned:
    """Stage: the table that is given, or the levels shift t / (1 + (shift - 1) t), t falling evenly from 1.

    Raises ValueError for numbers that are none.
    """
    if plan is not None:
        return Planned(make_plan(scheduler, num_inference_steps, plan))
    check_count("num_inference_steps", num_inference_steps)
    if not (math.isfinite(shift) and shift > 0):
        raise ValueError(f"shift is {shift!r}; it must be above 0, such as 3")
    t = np.linspace(1, 0, num_inference_steps + 1)[:-1]
    own: Any = scheduler
    return Planned(make_plan(scheduler, num_inference_steps, own.plan(sigmas=shift * t / (1 + (shift - 1) * t))))


class Source(NamedTuple):
    """The distributions of the latents of the sounds that are given, how long the music is, and what is heard."""

    source: Any
    timbre: Any
    seconds: float
    length: int
    heard: Heard


def sourced(
    vae: AutoencoderOobleck, params: Params, task_type: str, audio_duration: float | None, src_audio: Audio,
    reference_audio: Audio,
) -> Source:  # fmt: skip
    """Stage: what there is to work on, and how long the music is: as long as that, or audio_duration.

    Raises ValueError for sounds that do not fit the model, and for tasks that need one or cannot have one.
    """
    rate, hop = vae.sampling_rate, vae.hop_length
    if task_type == "cover" and src_audio is not None:
        raise ValueError("src_audio is covered by way of ACE-Step's audio_tokenizer, which fdiff does not have; use "
                         "task_type repaint, or reference_audio")
    if task_type in ("repaint", "extract", "lego", "complete") and src_audio is None:
        raise ValueError(f"task_type {task_type} works on music; pass it as src_audio")

    def seen(samples: np.ndarray) -> Any:
        return encoded(vae, tree_of(params, "vae"), jnp.asarray(samples)[None])

    source = timbre = None
    if audio_duration is not None:
        check_seconds("audio_duration", audio_duration, least=hop / rate)
    if reference_audio is not None:
        timbre = seen(thirds(samples_of("reference_audio", reference_audio, rate, vae.audio_channels), rate))
    if src_audio is None:
        seconds = SECONDS if audio_duration is None else float(audio_duration)
        length = math.ceil(round(seconds * rate / hop, 6))
        return Source(None, timbre, seconds, length, Heard((0, int(seconds * rate)), rate))
    samples = samples_of("src_audio", src_audio, rate, vae.audio_channels)
    if len(samples) < hop:
        raise ValueError(f"src_audio lasts {len(samples) / rate:g} seconds; it must last {hop / rate:g} or more")
    source = seen(samples)
    length = source.mean.shape[1]
    seconds = len(samples) / rate if audio_duration is None else float(audio_duration)
    return Source(source, timbre, seconds, length, Heard((0, length * hop), rate))


def thirds(samples: np.ndarray, rate: int) -> np.ndarray:
    """TIMBRE seconds of a sound (n, c), a third of them from its beginning, middle and end; repeated if shorter."""
    samples = np.tile(samples, (math.ceil(TIMBRE * rate / len(samples)), 1))
    part, third = TIMBRE * rate // 3, len(samples) // 3
    return np.concatenate([samples[:part], samples[third : third + part], samples[len(samples) - part :]])


class ReadMusic(NamedTuple):
    """What the text encoder made of the texts, for b pieces of music."""

    texts: AceStepText
    batch_size: int


def read(
    pipe: AceStepPipeline, params: Params, prompt: Prompt, lyrics: Prompt, prompt_embeds: AceStepText | None,
    vocal_language: Prompt, instruction: str | None, task_type: str, track_name: str | None,
    complete_track_classes: Sequence[str], bpm: int | None, keyscale: str | None, timesignature: str | None,
    seconds: float, num_waveforms_per_prompt: int,
) -> ReadMusic:  # fmt: skip
    """Stage: read the texts. Raises ValueError for texts that are none, or given twice."""
    one_of(prompt, prompt_embeds)
    said = instruction_of(task_type, track_name, complete_track_classes)
    if prompt_embeds is None:
        prompt_embeds = encode_prompt(
            pipe, params, prompt, lyrics, seconds=seconds, vocal_language=vocal_language,
            instruction=instruction or said, bpm=bpm, keyscale=keyscale, timesignature=timesignature,
        )
    if not isinstance(prompt_embeds, tuple) or len(prompt_embeds) != 4:
        raise ValueError("prompt_embeds must be four arrays, an AceStepText; see encode_prompt")
    texts = AceStepText(*(finite("prompt_embeds", jnp.asarray(one)) for one in prompt_embeds))
    return ReadMusic(spread(texts, num_waveforms_per_prompt), len(texts.text) * num_waveforms_per_prompt)


class BegunMusic(NamedTuple):
    """The first x (b, n, c), the draws of the steps, and what the transformer is told."""

    x: jax.Array
    draws: Draws
    condition: AceStepCondition


def begin(
    pipe: AceStepPipeline, params: Params, plan: Plan, key: Key, torch_seed: Seed, latents: Any, texts: AceStepText,
    batch_size: int, source: Any, timbre: Any, length: int, task_type: str, repainting_start: float,
    repainting_end: float | None,
) -> BegunMusic:  # fmt: skip
    """Stage: begin with noise, and say what of the music is kept: all but what is repainted, where that is the task.

    Raises ValueError for bounds that are none.
    """
    channels = pipe.transformer.audio_acoustic_hidden_dim
    shape, given = (batch_size, length, channels), [one for one in (source, timbre) if one is not None]
    # torch draws the noise of encoded sounds first, and latents with their channels last
    wanted = [Wanted(one.mean.shape[1:], 1) for one in given]
    draws = draw_as_asked(key, torch_seed, plan, shape, "float32", *wanted,
                          Wanted((channels, length), None if latents is None else 0))
    drawn = [one.mean + one.std * noise for one, noise in zip(given, draws.arrays, strict=False)]
    x = jnp.swapaxes(draws.arrays[-1], 1, 2) if latents is None else checked_latents(latents, shape)
    tree = tree_of(params, "condition_encoder")
    silence = jnp.asarray(tree["silence_latent"], jnp.float32)[0]
    nothing = jnp.tile(silence, (-(-length // len(silence)), 1))[:length]
    kept, anew = nothing[None], jnp.ones((length, 1))
    if source is not None:
        kept = drawn[0]
        if task_type in ("repaint", "lego"):
            anew = within(length, pipe.vae, repainting_start, repainting_end)
        if task_type == "repaint":
            kept = jnp.where(anew > 0, nothing, kept)
    heard = drawn[-1] if timbre is not None else silence[None, : math.ceil(TIMBRE * _a_second(pipe.vae))]
    heard = jnp.broadcast_to(heard, (batch_size, *heard.shape[1:]))
    told = applied(pipe.condition_encoder, tree, *texts, heard, jnp.arange(batch_size)).hidden_states
    context = jnp.concatenate([jnp.broadcast_to(kept, shape), jnp.broadcast_to(anew, shape)], axis=-1)
    return BegunMusic(plan.start * x, draws, AceStepCondition(told, context))


def within(length: int, vae: AutoencoderOobleck, start: float, end: float | None) -> jax.Array:
    """1 at the latents that are made anew and 0 at the others, (n, 1). Raises ValueError unless start is below end."""
    last = length / _a_second(vae)
    start = check_seconds("repainting_start", start, most=last)
    stop = last if end is None else check_seconds("repainting_end", end, least=0.0)
    if stop <= start:
        raise ValueError(f"repainting_end is {end!r}; it must be above repainting_start, {start:g} seconds")
    first = min(int(start * _a_second(vae)), length - 1)
    behind = max(first + 1, min(int(stop * _a_second(vae)), length))
    places = jnp.arange(length)[:, None]
    return ((places >= first) & (places < behind)).astype(jnp.float32)


def _a_second(vae: AutoencoderOobleck) -> float:
    return vae.sampling_rate / vae.hop_length


class GuidedMusic(NamedTuple):
    """(x, t, memory) -> out and the next memory, the first memory; (x, t) -> out and None where none is needed."""

    network: Any
    memory: Any


def guided(
    transformer: AceStepTransformer1DModel, params: Params, plan: Plan, x: jax.Array, condition: AceStepCondition,
    guidance_scale: Scale, cfg_interval_start: float, cfg_interval_end: float,
) -> GuidedMusic:  # fmt: skip
    """Stage: the transformer, guided away from the embedding of nothing while the noise that is gone lies within both.

    Raises ValueError for scales and shares that are none.
    """
    if not 0 <= cfg_interval_start <= cfg_interval_end <= 1:
        raise ValueError(f"cfg_interval_start is {cfg_interval_start!r} and cfg_interval_end {cfg_interval_end!r}; "
                         "they must rise from 0 to 1")
    denoiser = Partial(Teller(transformer), tree_of(params, "transformer"))
    if not asks_guidance(guidance_scale, len(x)) or transformer.is_turbo or transformer.model_version == "turbo":
        return GuidedMusic(guidance.given(denoiser, condition), None)
    gone = 1 - np.asarray(plan.sigma, np.float32)
    on = ByRow(((cfg_interval_start <= gone) & (gone <= cfg_interval_end)).astype(np.float32))
    null = jnp.broadcast_to(tree_of(params, "condition_encoder")["null_condition_emb"], condition.told.shape)
    away = condition._replace(told=null.astype(condition.told.dtype))
    projected = Partial(_projected, denoiser, condition, away, jnp.float32(guidance_scale))
    network = guidance.part(projected, guidance.given(denoiser, condition), on)
    return GuidedMusic(network, (jnp.zeros(x.shape, jnp.float32), None))


@dataclasses.dataclass(frozen=True)
class Teller:
    """The transformer as (params, x, t, condition) -> out; two of the same one are one function to the compiler."""

    transformer: AceStepTransformer1DModel

    def __call__(self, params: Any, x: jax.Array, t: jax.Array, condition: AceStepCondition) -> jax.Array:
        """What the transformer says of x."""
        said: Any = self.transformer.apply({"params": params}, x, t, t, condition.told, condition.context)
        return said


def _projected(
    network: guidance.Conditional, condition: AceStepCondition, away: AceStepCondition, scale: jax.Array,
    x: jax.Array, t: jax.Array, memory: jax.Array,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """Adaptive projected guidance with momentum (Sadat et al. 2024, algorithm 1), norms being over time:

        d = positive - negative + MOMENTUM d_before,  cut to the norm LIMIT
        out = positive + (scale - 1) (d - what of d is parallel to positive)
    """
    without, positive, _ = guidance.two_predictions(network, condition, away, x, t)
    average = positive - without + MOMENTUM * memory
    norm = jnp.linalg.norm(average, axis=1, keepdims=True)
    update = average * jnp.minimum(1.0, LIMIT / jnp.maximum(norm, 1e-12))
    unit = positive / jnp.maximum(jnp.linalg.norm(positive, axis=1, keepdims=True), 1e-12)
    update -= (update * unit).sum(1, keepdims=True) * unit
    return positive + (scale.reshape(-1, 1, 1) - 1) * update, average


@partial(jax.jit, static_argnums=0)
def decoded(vae: AutoencoderOobleck, params: Any, x: jax.Array) -> jax.Array:
    """Samples (b, n, c), float32, of latents, the loudest of each at LOUDEST."""
    samples = decode_in_parts(vae, params, x).astype(jnp.float32)
    return samples * (LOUDEST / jnp.maximum(jnp.abs(samples).max((1, 2), keepdims=True), 1e-6))


making = Task(Music, (planned, sourced, read, begin, guided), sounds, "Make music from text and lyrics.")


@dataclasses.dataclass(frozen=True)
class AceStepPipeline(DiffusionPipeline):
    """Music from text and lyrics, of up to ten minutes in stereo, as ACE-Step 1.5 makes it (Gong et al. 2026)."""

    family: ClassVar[str] = "ace_step"
    makes: ClassVar[str] = "sounds"

    vae: AutoencoderOobleck
    text_encoder: Qwen3ForCausalLM | None
    tokenizer: Any | None
    transformer: AceStepTransformer1DModel
    condition_encoder: AceStepConditionEncoder
    scheduler: Scheduler

    encode_prompt = encode_prompt
    encode_ids = encode_ids

    def decode(self, params: Params, x: jax.Array) -> jax.Array:
        """Samples (b, n, c), float32, of latents, the loudest of each piece at -1 dB."""
        return decoded(self.vae, tree_of(params, "vae"), x)

    __call__, steps = making.methods()
