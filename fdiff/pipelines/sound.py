"""What pipelines of sound share: what they can be asked, and what comes out."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import Any, NamedTuple

import jax
import numpy as np

from fdiff import audio
from fdiff.pipelines.checks import check_finite, finite
from fdiff.pipelines.pipeline import Params
from fdiff.pipelines.task import Request, option

log = logging.getLogger("fdiff")

OUTPUT_TYPES = ("np", "array", "latent")
Audio = str | audio.Sound | np.ndarray | None  # a file, what `fdiff.audio.read` makes of one, or (channels, n) or (n,)


class SoundOutput(NamedTuple):
    """What a pipeline of sound returns.

    audios: (b, channels, n), or (b, n) of pipelines that know one channel only, about in [-1, 1]; float32 arrays of
        NumPy, or of JAX where asked.
    sampling_rate: how many of the n are a second.
    """

    audios: Any
    sampling_rate: int


@dataclasses.dataclass(frozen=True)
class Sound(Request):
    """Sounds."""

    _: KW_ONLY
    num_inference_steps: int = option(100, "network calls", flag="steps")
    output_type: str = option(
        "np", "np, arrays of NumPy; array, of JAX; or latent, undecoded, where there are latents", flag=None
    )


@dataclasses.dataclass(frozen=True)
class Long(Sound):
    """Sounds of any length."""

    _: KW_ONLY
    overlap_in_s: float | None = option(
        None, "make what is longer than the model's own length in windows of that, which overlap by so many seconds "
        "and fade into one another; all at once if not given", flag="overlap",
    )  # fmt: skip


class Heard(NamedTuple):
    """Which samples of what is decoded are heard, from one to below another, and how many of them are a second."""

    span: tuple[int, int]
    sampling_rate: int


def sounds(pipe: Any, params: Params, output_type: str, heard: Heard) -> Callable[[jax.Array], SoundOutput]:
    """Finish: what the sampler carries to sounds, by `pipe.decode`.

    Raises ValueError for an output type that there is not.
    """
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type is {output_type!r}; it can be {', '.join(OUTPUT_TYPES)}")

    def made(x: jax.Array) -> SoundOutput:
        if output_type == "latent":
            return SoundOutput(x, heard.sampling_rate)
        samples = pipe.decode(params, x)[:, slice(*heard.span)]
        check_finite(samples)
        samples = samples.swapaxes(1, 2) if samples.ndim == 3 else samples
        return SoundOutput(np.asarray(samples) if output_type == "np" else samples, heard.sampling_rate)

    return made


def samples_of(name: str, given: Any, rate: int, channels: int) -> np.ndarray:
    """A sound that was given, a file, a fdiff.audio.Sound, or an array (channels, n) or (n,), as samples (n, channels).

    One channel stands for all, and several are averaged to one. A warning says that it is silent. Raises ValueError for
    another sampling rate, another number of channels, and what is no sound.
    """
    if isinstance(given, str):
        given = audio.read(given)
    if isinstance(given, audio.Sound):
        if given.rate != rate:
            raise ValueError(f"{name} has {given.rate} samples a second and the model {rate}; "
                             "fdiff.audio.resample changes that")
        given = given.samples.T
    array = np.atleast_2d(np.asarray(given, np.float32))
    if array.ndim != 2 or not array.size or (len(array) not in (1, channels) and channels != 1):
        raise ValueError(f"{name} has shape {np.shape(given)}; it must be ({channels}, n) or (n,)")
    array = array.mean(0, keepdims=True) if channels == 1 else np.broadcast_to(array, (channels, array.shape[1]))
    samples: np.ndarray = finite(name, array).T
    if not samples.any():
        log.warning("%s is silent, all of its samples being 0", name)
    return samples


def places_of(overlap_in_s: float, size: int, rate: float) -> int:
    """The overlap of windows of `size` places, `rate` of them a second, in places.

    Raises ValueError for an overlap that is none, or as long as a window.
    """
    seconds = check_seconds("overlap_in_s", overlap_in_s)
    places = round(seconds * rate)
    if places >= size:
        raise ValueError(f"overlap_in_s is {seconds:g}, and a window lasts {size / rate:g} seconds; overlap by less")
    return places


def check_seconds(name: str, seconds: Any, least: float = 0.0, most: float = math.inf) -> float:
    """The number of seconds. Raises ValueError unless it lies within the bounds."""
    good = isinstance(seconds, int | float | np.number) and math.isfinite(seconds)
    if not good or not least <= seconds <= most:
        bounds = f"from {least:g}" + (f" to {most:g}" if math.isfinite(most) else "")
        raise ValueError(f"{name} is {seconds!r}; it must be a number of seconds {bounds}")
    return float(seconds)
