"""What pipelines of sound share: what they can be asked, and what comes out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import Any, NamedTuple

import jax
import numpy as np

from fdiff.pipelines.checks import check_finite
from fdiff.pipelines.pipeline import Params
from fdiff.pipelines.task import Request, option

OUTPUT_TYPES = ("np", "array", "latent")


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


def check_seconds(name: str, seconds: Any, least: float = 0.0, most: float = math.inf) -> float:
    """The number of seconds. Raises ValueError unless it lies within the bounds."""
    good = isinstance(seconds, int | float | np.number) and math.isfinite(seconds)
    if not good or not least <= seconds <= most:
        bounds = f"from {least:g}" + (f" to {most:g}" if math.isfinite(most) else "")
        raise ValueError(f"{name} is {seconds!r}; it must be a number of seconds {bounds}")
    return float(seconds)
