"""Sounds drawn as mel spectrograms: from nothing, from another sound or around a part of it, and of a class."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff import images, sampling
from fdiff.audio import Mel, read
from fdiff.models import AutoencoderKL, UNet2DConditionModel, UNet2DModel
from fdiff.pipelines import latent
from fdiff.pipelines.checks import check_finite
from fdiff.pipelines.class_conditional import (
    ClassConditional,
    ClassPipeline,
    guided_to_class,
    labelled,
    planned_as_suits,
)
from fdiff.pipelines.denoise import Network
from fdiff.pipelines.draws import Draws, Seed, Wanted, draw_as_asked
from fdiff.pipelines.image_to_image import noised
from fdiff.pipelines.inpaint import levels_after, put_back
from fdiff.pipelines.pipeline import DiffusionPipeline, Params, sample_shape, tree_of
from fdiff.pipelines.plans import Planned, make_plan
from fdiff.pipelines.sound import Audio, check_seconds, places_of
from fdiff.pipelines.task import Key, Request, Task, option
from fdiff.pipelines.unconditional import begun_with
from fdiff.plan import Plan
from fdiff.schedulers import DDIMInverseScheduler, DDIMScheduler, Scheduler
from fdiff.spacing import check_count
from fdiff.windows import windowed

PEAK = 0.9  # of the sounds of classes, whose pictures do not say how loud they are
MOST_GAIN = 100.0  # so that what is silent stays so


class SpectrogramOutput(NamedTuple):
    """What a pipeline of spectrograms returns.

    audios: (b, 1, n) float32, about in [-1, 1]. sampling_rate: how many of the n are a second.
    images: the spectrograms as gray PIL images, low tones at the top as diffusers has them.
    """

    audios: Any
    sampling_rate: int
    images: Any


@dataclasses.dataclass(frozen=True)
class Spectral(Request):
    """Sounds as spectrograms, of any length."""

    _: KW_ONLY
    audio_length_in_s: float | None = option(
        None, "how many seconds long; what the model was trained on if not given", flag="seconds"
    )
    overlap_in_s: float | None = option(
        None, "by how many seconds the windows of the model's own length overlap, in which what is longer is made; a "
        "quarter of that length if not given", flag="overlap",
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class AudioDiffusion(Spectral):
    """Sounds from noise alone, or from a sound."""

    _: KW_ONLY
    batch_size: int = option(1, "how many sounds", flag="num-images")
    num_inference_steps: int | None = option(
        None, "network calls; 50 of DDIM and 1000 of others if not given", flag="steps"
    )
    audio: Audio = option(
        None, "a sound to begin from: a file, a fdiff.audio.Sound, or samples (n,) at the model's sampling rate"
    )
    slice: int = option(0, "which piece of the sound, as long as the model's, to begin from", flag=None)
    start_step: int = option(0, "how many steps to leave out: the more, the more of the sound is kept", flag=None)
    mask_start_secs: float = option(0.0, "seconds at the beginning of the sound to keep as they are", flag=None)
    mask_end_secs: float = option(0.0, "seconds at its end to keep as they are", flag=None)
    eta: float = option(0.0, "of DDIM: how much of an ancestral step's noise is drawn, 0 to 1")
    noise: Any = option(None, "where to begin, (b, h, w, c) of deviation 1, such as `encode` gives", flag=None)
    encoding: Any = option(None, "(b, n, c) that a conditional U-Net looks at", flag=None)
    output_type: str = option("np", "np, or array for audios of JAX", flag=None)


def planned(
    pipe: AudioDiffusionPipeline, num_inference_steps: int | None, plan: Plan | None, start_step: int, eta: float,
    audio: Audio,
) -> Planned:  # fmt: skip
    """Stage: the table, without its first start_step steps. Raises ValueError for numbers that are none."""
    ddim = isinstance(pipe.scheduler, DDIMScheduler)
    steps = (50 if ddim else 1000) if num_inference_steps is None else num_inference_steps
    check_count("num_inference_steps", steps)
    if not 0 <= start_step < steps:
        raise ValueError(f"start_step is {start_step}; it must be 0 or more and below {steps}, the number of steps")
    if start_step and audio is None:
        raise ValueError("start_step leaves out steps, and there is no audio to begin from; pass one")
    if plan is not None:
        return Planned(make_plan(pipe.scheduler, steps, plan))
    strength = 1.0 if not start_step else (steps - start_step + 0.5) / steps  # which rounds down to whole steps
    options: dict[str, Any] = {"strength": strength, **({"eta": eta} if ddim else {})}
    return Planned(make_plan(pipe.scheduler, steps, pipe.scheduler.plan(steps, **options)))


class BegunSpectrogram(NamedTuple):
    """The first x, (b, h, w, c), the draws of the steps, and what becomes of x after each step."""

    x: jax.Array
    draws: Draws
    after: Any


def begun(
    pipe: AudioDiffusionPipeline, params: Params, plan: Plan, batch_size: int, key: Key, torch_seed: Seed, noise: Any,
    audio: Audio, slice: int, start_step: int, mask_start_secs: float, mask_end_secs: float,
    audio_length_in_s: float | None,
) -> BegunSpectrogram:  # fmt: skip
    """Stage: begin with noise, or with the sound at the plan's first level; what is kept of it is put back after each
    step, at the level that the step reached, so that it is kept as it is.

    Raises ValueError for a piece that the sound does not have, or more seconds than the piece lasts.
    """
    check_count("batch_size", batch_size)
    shape = shape_for(pipe, audio_length_in_s)
    if audio is not None and audio_length_in_s is not None:
        raise ValueError("audio_length_in_s is how long a sound from nothing is, and audio is given; leave one out")
    rows = 0 if noise is not None else None
    wanted = Wanted(shape, rows), Wanted(shape, None if audio is not None and pipe.vqvae is not None else 0)
    draws = draw_as_asked(key, torch_seed, plan, (batch_size, *shape), "float32", *wanted)
    first = draws.arrays[0] if noise is None else latent.checked_latents(noise, (batch_size, *shape))
    keeps = [check_seconds(name, value) for name, value in
             (("mask_start_secs", mask_start_secs), ("mask_end_secs", mask_end_secs))]  # fmt: skip
    if audio is None:
        if any(keeps):
            raise ValueError("mask_start_secs and mask_end_secs keep a part of the audio, and none is given; pass one")
        return BegunSpectrogram(plan.start * first, draws, None)
    known = _seen(pipe, params, audio, slice, draws.arrays[1])
    a_second = columns_a_second(pipe)
    kept = [int(seconds * a_second) for seconds in keeps]
    if sum(kept) >= shape[1]:
        raise ValueError(f"mask_start_secs and mask_end_secs keep {sum(keeps):g} s, and the sound lasts "
                         f"{shape[1] / a_second:g}; keep less")
    places = np.arange(shape[1])
    mask = ((places >= kept[0]) & (places < shape[1] - kept[1])).astype(np.float32)[None, None, :, None]
    after = Partial(put_back, jnp.asarray(mask), known, first, *levels_after(plan)) if any(kept) else None
    return BegunSpectrogram(noised(plan, known, first) if start_step else plan.start * first, draws, after)


def shape_for(pipe: Any, audio_length_in_s: float | None) -> tuple[int, int, int]:
    """(h, w, c) of what the U-Net draws of so many seconds: its own width, or more. Raises ValueError for no length."""
    height, own, channels = sample_shape(pipe.unet)
    if audio_length_in_s is None:
        return height, own, channels
    least = pipe.mel.hop_length / pipe.mel.sample_rate
    seconds = check_seconds("audio_length_in_s", audio_length_in_s, least=least)
    frames = math.ceil(round(seconds / least, 6)) + 1  # a sound lasts from the middle of the first to the last one's
    return height, max(own, -(-frames * own // pipe.mel.x_res)), channels


def columns_a_second(pipe: Any) -> float:
    """How many columns of what the U-Net draws are a second."""
    return float(sample_shape(pipe.unet)[1] * pipe.mel.sample_rate / pipe.mel.x_res / pipe.mel.hop_length)


def in_windows(pipe: Any, network: sampling.Network, x: jax.Array, overlap_in_s: float | None) -> Network:
    """Stage: the network, over windows of its own width where x is wider. Raises ValueError for no overlap."""
    own, rate = sample_shape(pipe.unet)[1], columns_a_second(pipe)
    overlap = places_of(own / rate / 4 if overlap_in_s is None else overlap_in_s, own, rate)
    return Network(windowed(network, own, overlap, axis=2) if x.shape[2] > own else network)


def begun_with_noise(
    pipe: Any, plan: Plan, key: Key, torch_seed: Seed, batch_size: int, audio_length_in_s: float | None
) -> latent.Begun:
    """Stage: begin with noise of that length. Raises ValueError for no number and no length."""
    return begun_with(shape_for(pipe, audio_length_in_s), plan, key, torch_seed, batch_size)


def _seen(pipe: AudioDiffusionPipeline, params: Params, audio: Any, piece: int, noise: jax.Array) -> jax.Array:
    """The piece of the sound as the network sees it, (1, h, w, c). Raises ValueError for none, and for silence."""
    pieces = pipe.mel.slices(read(audio) if isinstance(audio, str) else audio)
    if not 0 <= piece < len(pieces):
        raise ValueError(f"slice is {piece}, and the audio has {len(pieces)}; count them from 0")
    if not pieces[piece].any():
        raise ValueError(f"piece {piece} of {len(pieces)} of the sound is silent; give one that can be heard")
    pixels = jnp.floor(pipe.mel.pixels(pieces[piece]) + 0.5)[None, ..., None] / 127.5 - 1
    if pipe.vqvae is None:
        return pixels
    return latent.encoded(pipe.vqvae, tree_of(params, "vqvae"), pixels, noise[:1])


def applied(pipe: AudioDiffusionPipeline, params: Params, encoding: Any) -> Network:
    """Stage: the U-Net, told the encoding if it looks at one. Raises ValueError where it needs one, or none."""
    looks = isinstance(pipe.unet, UNet2DConditionModel)
    if looks != (encoding is not None):
        raise ValueError("the unet looks at an encoding; pass one" if looks else
                         "encoding means nothing to this unet; leave it out")
    told = {"encoder_hidden_states": jnp.asarray(encoding)} if looks else {}
    return Network(Partial(pipe.unet.apply, {"params": tree_of(params, "unet")}, **told))


def spectrograms(
    pipe: Any, params: Params, output_type: str, audio_length_in_s: float | None
) -> Callable[[jax.Array], SpectrogramOutput]:
    """Finish: the pictures, and the sounds that they are. Raises ValueError for an output type that there is not."""
    if output_type not in ("np", "array"):
        raise ValueError(f"output_type is {output_type!r}; it can be np, array")

    def finish(x: jax.Array) -> SpectrogramOutput:
        drawn = x if getattr(pipe, "vqvae", None) is None else pipe.decode(params, x)
        check_finite(drawn)
        pictures = [picture.convert("L") for picture in images.to_pil(drawn)]
        # a picture says nothing of the phases; from the same ones, the same picture is the same sound
        sounds = jax.jit(pipe.mel.samples)(np.stack([np.asarray(one) for one in pictures]), jax.random.key(0))[:, None]
        if audio_length_in_s is not None:
            sounds = sounds[..., : int(audio_length_in_s * pipe.mel.sample_rate)]
        return SpectrogramOutput(np.asarray(sounds) if output_type == "np" else sounds, pipe.mel.sample_rate, pictures)

    return finish


def loud(
    pipe: Any, params: Params, output_type: str, audio_length_in_s: float | None
) -> Callable[[jax.Array], SpectrogramOutput]:
    """Finish: the sounds at one loudness, of which a picture says nothing: its decibels are below its own loudest."""
    made = spectrograms(pipe, params, output_type, audio_length_in_s)

    def finish(x: jax.Array) -> SpectrogramOutput:
        output = made(x)
        peaks = abs(output.audios).max(axis=-1, keepdims=True)
        return output._replace(audios=output.audios * (PEAK / peaks.clip(PEAK / MOST_GAIN)))

    return finish


making = Task(AudioDiffusion, (planned, begun, applied, in_windows), spectrograms, "Make sounds.")


@dataclasses.dataclass(frozen=True)
class AudioDiffusionPipeline(DiffusionPipeline):
    """Sounds as mel spectrograms, in pixels or in latents of an autoencoder (Audio Diffusion, Smith 2022).

    A sound that is begun from stands at the level at which its first step is taken, and what is kept of it comes out
    as it was; diffusers is one step late with both.
    """

    unet: UNet2DModel | UNet2DConditionModel
    mel: Mel
    scheduler: Scheduler
    vqvae: AutoencoderKL | None = None

    makes: ClassVar[str] = "sounds"
    autoencoder: ClassVar[str] = "vqvae"
    decode = latent.decode

    __call__, steps = making.methods()

    def encode(self, params: Params, images_: Sequence[Any], num_inference_steps: int = 50) -> jax.Array:
        """The noise (b, h, w, 1) from which DDIM draws these gray pictures, by running it backwards.

        Song et al. 2021, eq. 14. Raises ValueError for a scheduler that is not DDIM's.
        """
        if not isinstance(self.scheduler, DDIMScheduler):
            raise ValueError(f"encode runs DDIM backwards, and the scheduler is a {type(self.scheduler).__name__}; "
                             "replace it with a DDIMScheduler")
        plan = DDIMInverseScheduler.from_config(self.scheduler, clip_sample=False).plan(num_inference_steps)
        network = applied(self, params, None).network
        return sampling.sample(network, plan, jnp.asarray(images.from_pil(list(images_), "L")))


@dataclasses.dataclass(frozen=True)
class SoundsOfClasses(ClassConditional, Spectral):
    """Sounds of classes."""

    _: KW_ONLY
    output_type: str = option("np", "np, or array for audios of JAX", flag=None)


@dataclasses.dataclass(frozen=True)
class ClassConditionalSoundPipeline(ClassPipeline):
    """Sounds of a class, such as spoken words, as mel spectrograms."""

    _: KW_ONLY
    mel: Mel

    makes: ClassVar[str] = "sounds"

    __call__, steps = Task(
        SoundsOfClasses, (labelled, planned_as_suits, begun_with_noise, guided_to_class, in_windows), loud,
        "Make one sound of each class that is asked for.",
    ).methods()  # fmt: skip
