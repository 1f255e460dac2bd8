"""All of a pipeline that draws sound: samples (b, n) and how many of them are a second."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial

import fdiff
from fdiff.pipelines.denoise import Network
from fdiff.pipelines.draws import Wanted, draw_as_asked
from fdiff.pipelines.latent import Begun
from fdiff.pipelines.plans import planned
from fdiff.pipelines.task import Request, Task, option
from tests.pipelines.toy_models import ToyWave


class Sound(NamedTuple):
    audios: Any  # (b, n), in [-1, 1]
    sampling_rate: int


@dataclasses.dataclass(frozen=True)
class Sounds(Request):
    seconds: float = option(0.01, "how long")
    _: KW_ONLY
    batch_size: int = option(1, "how many sounds")
    num_inference_steps: int = option(50, "network calls", flag="steps")
    output_type: str = option("np", "np, or array, as JAX has it", flag=None)


def begin(
    unet: Any, plan: Any, seconds: float, sampling_rate: int, batch_size: int, key: Any, torch_seed: Any
) -> Begun:
    n = round(seconds * sampling_rate) // unet.frame * unet.frame
    draws = draw_as_asked(key, torch_seed, plan, (batch_size, n), "float32", Wanted((n,)))
    return Begun(plan.start * draws.arrays[0], draws)


def applied(unet: Any, params: Any) -> Network:
    return Network(Partial(unet.apply, {"params": params["unet"]}))


def sounds(sampling_rate: int, output_type: str) -> Callable[[jax.Array], Sound]:
    return lambda x: Sound(np.asarray(x) if output_type == "np" else x, sampling_rate)


@fdiff.register
@dataclasses.dataclass(frozen=True)
class ToySoundPipeline(fdiff.DiffusionPipeline):
    unet: ToyWave
    scheduler: fdiff.schedulers.Scheduler
    sampling_rate: int = 16000

    __call__, steps = Task(Sounds, (planned, begin, applied), sounds, "Draw sounds.").methods()
