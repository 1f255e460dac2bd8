"""Qwen2.5-VL (Bai et al. 2025), which reads texts and sees pictures: the text encoder of Qwen-Image."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Count, Epsilon, Index, Layers, Theta, checked
from fdiff.models.layers.checks import require
from fdiff.models.layers.qwen_vision import QwenVision
from fdiff.models.layers.rotary import rotary_angles
from fdiff.models.model import CONFIG
from fdiff.models.seeing_lm import SeeingLM


class Qwen2_5_VLModel(SeeingLM):
    """A language model that is shown pictures, (b, h, w, 3) each, normalized, of sides that 28 divides.

    What it sees stands where input_ids are image_token_id, a token for 28 x 28 pixels, one picture after the other.
    position_ids are then those of `places`, (b, n, 3): its rotary embeddings have three axes, of time, rows and
    columns, which are one for a text. Without a vision_config it sees nothing.
    """

    model_type: ClassVar[str | None] = "qwen2_5_vl"
    qkv_bias: ClassVar[bool] = True
    rope_types: ClassVar[tuple[str, ...]] = ("default", "mrope")

    vocab_size: Count = 152064
    hidden_size: Count = 8192
    intermediate_size: Count = 29568
    num_hidden_layers: Layers = 80
    num_attention_heads: Count = 64
    num_key_value_heads: Count = 8
    rms_norm_eps: Epsilon = 1e-5
    rope_theta: Theta = 1000000.0
    sliding_window: Count | None = None
    image_token_id: Index = 151655
    vision_config: Mapping[str, Any] | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, file: str | os.PathLike[str] = CONFIG) -> Self:
        """As every model's; the width of a head follows from hidden_size, whatever head_dim says."""
        text = config.get("text_config", {})
        if isinstance(text, Mapping):
            text = {key: value for key, value in text.items() if value is not None}
            whole = {"hidden_size": cls.hidden_size, "num_attention_heads": cls.num_attention_heads, **config, **text}
            width, heads = whole["hidden_size"], whole["num_attention_heads"]
            if isinstance(width, int) and isinstance(heads, int) and heads > 0:
                require(width % heads == 0, f"{file}: num_attention_heads {heads} must divide hidden_size {width}.")
                text["head_dim"] = width // heads
        return super().from_config({**config, "text_config": text}, file=file)

    def config(self) -> dict[str, Any]:
        """The config.json, with the options of both sides in text_config and vision_config."""
        whole = super().config()
        outside = {name: whole["text_config"].pop(name) for name in ("image_token_id", "vision_config")}
        return {**whole, **{name: value for name, value in outside.items() if value is not None}}

    def text_type(self) -> str:
        """qwen2_5_vl_text."""
        return "qwen2_5_vl_text"

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        super().check_options()
        sections = self.sections()
        good = self.vision_config is None or (len(sections) == 3 and sum(sections) == self.head_dim // 2)
        require(good, f"mrope_section {sections} must be three numbers that add up to {self.head_dim} / 2.")
        self.tower(parent=None)

    def sections(self) -> tuple[int, ...]:
        """How many frequencies go by time, by rows and by columns."""
        options = self.rope_parameters or self.rope_scaling or {}
        found: tuple[int, ...] = checked(
            type(self).__name__, "mrope_section", tuple[Count, ...], options.get("mrope_section", (16, 24, 24))
        )
        return found

    def angles(self, positions: jax.Array) -> jax.Array:
        """As every model's, or of positions (..., n, 3)."""
        if positions.ndim < 3:
            return super().angles(positions)
        parts, start = [], 0
        for axis, count in enumerate(self.sections()):
            angles = rotary_angles(positions[..., axis], self.head_dim, self.theta())
            parts.append(angles[..., start : start + count])
            start += count
        return jnp.concatenate(parts, axis=-1)

    def tower(self, **more: Any) -> QwenVision | None:
        """What sees, without parameters. Raises ValueError for options that are none of it."""
        if self.vision_config is None:
            return None
        kinds = {field.name: field.type for field in dataclasses.fields(QwenVision)}
        given = {
            name: checked(type(self).__name__, name, kinds[name], value)
            for name, value in self.vision_config.items() if name in kinds and name not in ("parent", "name")
        }  # fmt: skip
        tower = QwenVision(**given, **more)
        good = tower.out_hidden_size == self.hidden_size
        require(good, f"out_hidden_size {tower.out_hidden_size} must be hidden_size, {self.hidden_size}.")
        return tower

    def sighted(self, x: jax.Array, input_ids: jax.Array, shown: Sequence[jax.Array]) -> jax.Array:
        """Embeddings x (b, n, c), with what is seen in their place where tokens stand for it."""
        tower = self.tower(name="visual")
        if tower is None:
            return super().sighted(x, input_ids, shown)
        if self.is_initializing() and not shown:
            tower(jnp.zeros((1, tower.step, tower.step, tower.in_channels)))
        if not shown:
            return x
        here = input_ids == self.image_token_id
        seen = jnp.concatenate([jnp.broadcast_to(y, (len(x), *y.shape[1:])) for y in map(tower, shown)], axis=1)
        which = jnp.clip(here.cumsum(1) - 1, 0, seen.shape[1] - 1)
        return jnp.where(here[..., None], jnp.take_along_axis(seen, which[..., None], axis=1).astype(x.dtype), x)


class Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLModel):
    """Qwen2.5-VL as indices name it, whose last layer nobody here needs."""


def places(input_ids: np.ndarray, token: int, sizes: Sequence[tuple[int, int]]) -> np.ndarray:
    """Where tokens are, (b, n, 3) of time, row and column: a text goes on in all three, a picture in the last two.

    token: what stands for a square of a picture. sizes: how many rows and columns of those each picture has.

    Raises ValueError for texts with fewer or more such tokens.
    """
    found = np.zeros((*input_ids.shape, 3), np.int32)
    for row, ids in enumerate(input_ids):
        count = sum(rows * columns for rows, columns in sizes)
        if (ids == token).sum() != count:
            raise ValueError(f"{(ids == token).sum()} tokens of a text stand for pictures, which are {count}; a prompt "
                             "must hold none, and be so short that none is cut off.")
        position, start, left = 0, 0, list(sizes)
        while start < len(ids):
            rows, columns = left.pop(0) if ids[start] == token else (1, 1)
            grid = np.indices((1, rows, columns)).reshape(3, -1).T
            found[row, start : start + len(grid)] = position + grid
            position, start = position + max(rows, columns), start + len(grid)
    return found
