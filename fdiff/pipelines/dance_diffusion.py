"""Sounds from noise alone, sample by sample."""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from fdiff.models import UNet1DModel
from fdiff.pipelines.denoise import Network
from fdiff.pipelines.draws import Draws, Seed, Wanted, draw_as_asked
from fdiff.pipelines.pipeline import DiffusionPipeline, Params
from fdiff.pipelines.plans import planned
from fdiff.pipelines.sound import Heard, Long, check_seconds, places_of, sounds
from fdiff.pipelines.task import Key, Task, option
from fdiff.pipelines.unconditional import applied
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler
from fdiff.spacing import check_count
from fdiff.windows import windowed


@dataclasses.dataclass(frozen=True)
class UnconditionalSound(Long):
    """Sounds from noise alone."""

    _: KW_ONLY
    batch_size: int = option(1, "how many sounds", flag="num-images")
    audio_length_in_s: float | None = option(
        None, "how many seconds long; what the model was trained on if not given", flag="seconds"
    )


class BegunSound(NamedTuple):
    """The first x, (b, n, c), the draws of the steps, and what of the end is heard."""

    x: jax.Array
    draws: Draws
    heard: Heard


def from_noise(
    unet: UNet1DModel, plan: Plan, key: Key, torch_seed: Seed, batch_size: int, audio_length_in_s: float | None
) -> BegunSound:
    """Stage: begin with noise of that length, and a little more where the U-Net cannot halve it so often.

    Raises ValueError for a length that is none or too short.
    """
    check_count("batch_size", batch_size)
    rate, factor = unet.sample_rate, 2 ** len(unet.up_block_types)
    if rate is None:
        raise ValueError("the config.json of the unet has no sample_rate; add how many samples are a second")
    given = unet.sample_size / rate if audio_length_in_s is None else audio_length_in_s
    length = int(check_seconds("audio_length_in_s", given, least=3 * factor / rate) * rate)
    shape = (-(-length // factor) * factor, unet.in_channels)
    draws = draw_as_asked(key, torch_seed, plan, (batch_size, *shape), "float32", Wanted(shape))
    return BegunSound(plan.start * draws.arrays[0], draws, Heard((0, length), rate))


def in_windows(unet: UNet1DModel, params: Params, overlap_in_s: float | None) -> Network:
    """Stage: the U-Net, over windows of the length that it was trained on where an overlap is given.

    Raises ValueError for an overlap that is none.
    """
    network = applied(unet, params).network
    if overlap_in_s is None:
        return Network(network)
    factor = 2 ** len(unet.up_block_types)
    size = -(-unet.sample_size // factor) * factor
    return Network(windowed(network, size, places_of(overlap_in_s, size, unet.sample_rate or 1)))


@dataclasses.dataclass(frozen=True)
class DanceDiffusionPipeline(DiffusionPipeline):
    """Sounds as harmonai's checkpoints make them (Evans 2022): a network on the samples themselves."""

    family: ClassVar[str] = "dance_diffusion"
    makes: ClassVar[str] = "sounds"

    unet: UNet1DModel
    scheduler: Scheduler

    def decode(self, params: Params, x: jax.Array) -> jax.Array:
        """Samples (b, n, c) within [-1, 1], of what the sampler carries."""
        return jnp.clip(x.astype(jnp.float32), -1, 1)

    __call__, steps = Task(UnconditionalSound, (planned, from_noise, in_windows), sounds, "Make sounds.").methods()
