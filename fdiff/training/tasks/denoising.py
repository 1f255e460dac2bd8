"""What is done to samples that a network learns to denoise: their noise, their classes, and the loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff.pipelines.unconditional import PictureNetwork
from fdiff.training import pairs
from fdiff.training.loader import Preparing
from fdiff.training.loss import denoising_loss, withhold
from fdiff.training.step import Loss
from fdiff.training.tasks.pixels import NetworkSettings, Shape, scheduler, weight

Read = Callable[[Any], jax.Array]


@dataclasses.dataclass(frozen=True)
class WithNoise:
    """Prepares a sample, and draws its noise, so that it can be chosen on the host which sample gets it."""

    prepare: Preparing
    shape: Shape

    def __call__(self, sample: Any, random: np.random.Generator) -> dict[str, Any]:
        """The arrays of the sample."""
        return {**self.prepare(sample, random), "noise": random.standard_normal(self.shape, np.float32)}


def prepared_for(settings: NetworkSettings, prepare: Preparing, shape: Shape) -> Preparing:
    """How samples of that shape are prepared as the settings say."""
    return WithNoise(prepare, shape) if settings.pairs else prepare


def collated(name: str, conditional: bool = False) -> Callable[[dict[str, Any]], Any]:
    """Batches of the array of that name as "x0", with "label" of those whose class is told and "noise" where drawn."""

    def collate(arrays: dict[str, Any]) -> Any:
        batch = {"x0": arrays[name]}
        if conditional:
            batch["label"] = arrays["label"].astype("int32")
        if "noise" in arrays:
            batch["noise"] = pairs.optimal(batch["x0"], arrays["noise"], batch.get("label"))
        return batch

    return collate


def loss_of(
    settings: NetworkSettings, model: PictureNetwork, read: Read, classes: int = 0, withheld: float = 0.0
) -> Loss:
    """The denoising loss of batches of `collated`.

    read: what the batch's "x0" holds -> samples as the network sees them.
    classes: how many classes are told, "no class" in place of a share `withheld` of them; 0: nothing is told.
    """
    levels, weighed = scheduler(settings), weight(settings.weight)

    def network(params: Any, told: tuple[jax.Array, ...], key: jax.Array, x: jax.Array, t: jax.Array) -> Any:
        return model.apply({"params": params}, x, t, *told, rngs={"dropout": key})

    def loss(params: Any, batch: Any, key: jax.Array) -> jax.Array:
        key, key_dropout, key_withhold = jax.random.split(key, 3)
        told = (withhold(key_withhold, withheld, batch["label"], jnp.int32(classes)),) if classes else ()
        denoise = Partial(network, params, told, key_dropout)
        return denoising_loss(denoise, levels, read(batch["x0"]), key, weight=weighed, noise=batch.get("noise"))

    return loss
