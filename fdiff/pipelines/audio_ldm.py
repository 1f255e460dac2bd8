"""Sounds from text by pictures of them: AudioLDM and MusicLDM draw a mel spectrogram, and a vocoder speaks it."""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff.models import (
    AudioLDM2UNet2DConditionModel,
    AutoencoderKL,
    ClapModel,
    ClapTextModelWithProjection,
    SpeechT5HifiGan,
    UNet2DConditionModel,
)
from fdiff.pipelines import latent
from fdiff.pipelines.checks import asks_guidance, one_of
from fdiff.pipelines.denoise import guided
from fdiff.pipelines.draws import Seed
from fdiff.pipelines.latent import Begun, factor_of, first_latents
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
from fdiff.windows import windowed


@dataclasses.dataclass(frozen=True)
class SpectralText(SoundText):
    """Sounds from text."""

    _: KW_ONLY
    audio_length_in_s: float | None = option(
        None, "how many seconds long; what the model was trained on if not given", flag="seconds"
    )
    num_inference_steps: int = option(10)
    guidance_scale: Scale = option(2.5)


class Columns(NamedTuple):
    """How many columns of latents there are, how many a second has, and what of the sound is heard."""

    columns: int
    columns_a_second: float
    heard: Heard


def sized(
    unet: UNet2DConditionModel | AudioLDM2UNet2DConditionModel, vae: AutoencoderKL, vocoder: SpeechT5HifiGan,
    audio_length_in_s: float | None,
) -> Columns:  # fmt: skip
    """Stage: how long, the columns of latents being made whole. Raises ValueError for a length that is none."""
    factor, rate = factor_of(vae), vocoder.sampling_rate
    if vocoder.model_in_dim % factor:
        raise ValueError(f"the vocoder reads {vocoder.model_in_dim} frequencies; they must be a multiple of {factor}")
    column = float(np.prod(vocoder.upsample_rates)) / rate  # seconds
    if audio_length_in_s is None:
        audio_length_in_s = own_columns(unet, "pass audio_length_in_s") * factor * column
    seconds = check_seconds("audio_length_in_s", audio_length_in_s, least=factor * column)
    columns = -(-int(seconds / column) // factor)
    return Columns(columns, 1 / (factor * column), Heard((0, int(seconds * rate)), rate))


def own_columns(unet: UNet2DConditionModel | AudioLDM2UNet2DConditionModel, cure: str) -> int:
    """How many columns of latents the U-Net was trained on. Raises ValueError where it does not say."""
    size: Any = unet.sample_size
    if size is None:
        raise ValueError(f"the config.json of the unet has no sample_size; {cure}")
    return int(size) if isinstance(size, int) else int(size[0])


class InWindows(NamedTuple):
    """The U-Net as (x, t, condition) -> out, over windows where an overlap is given."""

    denoiser: Any


def in_windows(
    unet: UNet2DConditionModel | AudioLDM2UNet2DConditionModel, denoiser: Any, overlap_in_s: float | None,
    columns_a_second: float,
) -> InWindows:  # fmt: skip
    """Stage: the U-Net, over windows as long as what it was trained on where an overlap is given.

    Raises ValueError for an overlap that is none, and where nobody says how long that is.
    """
    if overlap_in_s is None:
        return InWindows(denoiser)
    size = own_columns(unet, "leave overlap_in_s out")
    return InWindows(windowed(denoiser, size, places_of(overlap_in_s, size, columns_a_second), alike=True))


def read(
    pipe: Any, params: Params, prompt: Prompt, negative_prompt: Prompt, prompt_embeds: Any,
    negative_prompt_embeds: Any, guidance_scale: Scale, num_waveforms_per_prompt: int,
) -> Read:  # fmt: skip
    """Stage: what the U-Net is told, a vector for each prompt.

    Raises ValueError for prompts that are none, or given twice.
    """
    one_of(prompt, prompt_embeds)
    one_of(negative_prompt, negative_prompt_embeds, "negative_prompt")
    if prompt_embeds is None:
        prompt_embeds = heard_as(pipe, params, listed("prompt", prompt))
    positive = given("prompt_embeds", prompt_embeds, 2)
    negative, count = None, len(positive)
    if asks_guidance(guidance_scale):
        if negative_prompt_embeds is None:
            negative_prompt_embeds = heard_as(pipe, params, listed("negative_prompt", negative_prompt or "", count))
        negative = given("negative_prompt_embeds", negative_prompt_embeds, 2)
        if negative.shape != positive.shape:
            raise ValueError(f"negative_prompt_embeds has shape {negative.shape}; it must be {positive.shape}")
    both = spread((positive, negative), num_waveforms_per_prompt)
    return Read(Partial(Teller(pipe.unet), tree_of(params, "unet")), both, count * num_waveforms_per_prompt)


def heard_as(pipe: Any, params: Params, prompts: list[str]) -> jax.Array:
    """What CLAP makes of texts, vectors (b, d) of length 1."""
    encoder, tokenizer = encoder_of(pipe)
    embeds = applied(encoder, tree_of(params, "text_encoder"), *tokenized(tokenizer, prompts)).text_embeds
    length = jnp.linalg.norm(embeds.astype(jnp.float32), axis=-1, keepdims=True)
    return embeds / jnp.maximum(length, 1e-12)


@dataclasses.dataclass(frozen=True)
class Teller:
    """The U-Net as (params, x, t, vectors) -> out; two of the same one are one function to the compiler."""

    unet: UNet2DConditionModel

    def __call__(self, params: Any, x: jax.Array, t: jax.Array, told: jax.Array) -> jax.Array:
        """What the U-Net says of x."""
        said: Any = self.unet.apply({"params": params}, x, t, None, told)
        return said


def begin(
    unet: UNet2DConditionModel | AudioLDM2UNet2DConditionModel, vae: AutoencoderKL, vocoder: SpeechT5HifiGan,
    plan: Plan, key: Key, torch_seed: Seed, latents: Any, batch_size: int, columns: int,
) -> Begun:  # fmt: skip
    """Stage: begin with noise, (b, columns, frequencies, c)."""
    shape = (batch_size, columns, vocoder.model_in_dim // factor_of(vae), unet.in_channels)
    return first_latents(plan, shape, latents, key, torch_seed, "float32")


def spoken(pipe: Any, params: Params, x: jax.Array) -> jax.Array:
    """Samples (b, n), float32, of latents: of the mel spectrogram that the autoencoder makes of them."""
    mel = latent.decoded(pipe.vae, tree_of(params, "vae"), x)
    return applied(pipe.vocoder, tree_of(params, "vocoder"), mel[..., 0]).astype(jnp.float32)


making = Task(SpectralText, (planned, sized, read, begin, in_windows, guided), sounds, "Make sounds from text.")


@dataclasses.dataclass(frozen=True)
class AudioLDMPipeline(DiffusionPipeline):
    """Sounds from text, of one channel, as cvssp/audioldm-s-full-v2 makes them (Liu et al. 2023)."""

    family: ClassVar[str] = "audio_ldm"
    makes: ClassVar[str] = "sounds"

    vae: AutoencoderKL
    text_encoder: ClapTextModelWithProjection | None
    tokenizer: Any | None
    unet: UNet2DConditionModel
    scheduler: Scheduler
    vocoder: SpeechT5HifiGan

    decode = spoken
    __call__, steps = making.methods()


@dataclasses.dataclass(frozen=True)
class MusicText(SpectralText):
    """Music from text."""

    _: KW_ONLY
    num_inference_steps: int = option(200)
    guidance_scale: Scale = option(2.0)


composing = Task(MusicText, (planned, sized, read, begin, in_windows, guided), sounds, "Make music from text.")


@dataclasses.dataclass(frozen=True)
class MusicLDMPipeline(DiffusionPipeline):
    """Music from text, of one channel, as ucsd-reach/musicldm makes it (Chen et al. 2023)."""

    family: ClassVar[str] = "music_ldm"
    makes: ClassVar[str] = "sounds"

    vae: AutoencoderKL
    text_encoder: ClapModel | ClapTextModelWithProjection | None
    tokenizer: Any | None
    unet: UNet2DConditionModel
    scheduler: Scheduler
    vocoder: SpeechT5HifiGan

    decode = spoken
    __call__, steps = composing.methods()
