"""Models and a tokenizer for the toy pipelines, as another package would have them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import fdiff
from fdiff.models.layers.linear import Embed, Linear


@fdiff.register
class ToyTransformer(fdiff.models.Model):
    in_channels: int = 16
    width: int = 8

    def example_inputs(self) -> tuple[Any, ...]:
        told = np.zeros((1, 3, self.width)), np.zeros((1, 4, 2)), np.zeros(1)
        return np.zeros((1, 4, self.in_channels)), np.float32(0), *told

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array, text: jax.Array, ids: jax.Array, guidance: jax.Array) -> jax.Array:
        numbers = Linear(self.width, name="numbers")(jnp.stack([0 * guidance + t / 1000, guidance], -1))
        y = Linear(self.width, name="x")(x) + Linear(self.width, name="ids")(ids / 8) + numbers[:, None]
        return Linear(self.in_channels, name="out")(y + jax.nn.softmax(y @ text.mT) @ text)


@fdiff.register
class ToyEncoder(fdiff.models.Model):
    def example_inputs(self) -> tuple[Any, ...]:
        return (np.zeros((1, 4), int),)

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        return Embed(256, 8, name="token")(ids)


@fdiff.register
@dataclasses.dataclass(frozen=True)
class ToyTokenizer:
    length: int = 12

    @classmethod
    def from_pretrained(cls, source: Any, *, subfolder: str = "", **where: Any) -> ToyTokenizer:
        return cls(int((Path(source) / subfolder / "length.txt").read_text()))

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "length.txt").write_text(str(self.length))

    def __call__(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode()[: self.length].ljust(self.length), np.uint8)[None]


@fdiff.register
class ToyWave(fdiff.models.Model):
    frame: int = 8

    def example_inputs(self) -> tuple[Any, ...]:
        return np.zeros((1, self.frame)), np.float32(0)

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array) -> jax.Array:
        frames = x.reshape(len(x), -1, self.frame)
        return Linear(self.frame, name="out")(nn.gelu(Linear(16, name="in")(frames) + t / 1000)).reshape(x.shape)
