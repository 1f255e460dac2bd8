"""The part of Qwen2.5-VL that sees (Bai et al. 2025): pictures to what stands for them in a text."""

from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Activation, Channels, Count, Index, Layers, between
from fdiff.models.layers.activations import activation, gelu
from fdiff.models.layers.attention import attention, merge_heads, split_heads
from fdiff.models.layers.linear import Linear, uniform
from fdiff.models.layers.norm import RMSNorm
from fdiff.models.layers.parameter import parameter
from fdiff.models.layers.patches import from_patches, to_patches
from fdiff.models.layers.rotary import axes_angles, rotate_halves

THETA = 10000.0
Side = Annotated[int, between(1, 64)]


class QwenVision(nn.Module):
    """Normalized pictures (b, h, w, c) -> (b, n, out_hidden_size), a token for each square of merged patches.

    Patches look at others of their window, in some blocks at all. Fields are the keys of a vision_config.
    """

    depth: Layers = 32
    hidden_size: Count = 3584
    hidden_act: Activation = "silu"
    intermediate_size: Count = 3420
    num_heads: Count = 16
    in_channels: Channels = 3
    patch_size: Side = 14
    spatial_merge_size: Side = 2
    temporal_patch_size: Side = 2
    window_size: Count = 112
    out_hidden_size: Count = 3584
    fullatt_block_indexes: tuple[Index, ...] = (7, 15, 23, 31)

    @nn.compact
    def __call__(self, picture: jax.Array) -> jax.Array:
        step, (batch, height, width, channels) = self.step, picture.shape
        if channels != self.in_channels or height % step or width % step:
            raise ValueError(f"Pictures to see must be (batch, height, width, {self.in_channels}), height and width "
                             f"multiples of {step}; they are {picture.shape}.")
        size = height // self.patch_size, width // self.patch_size
        patches = to_patches(picture, self.patch_size).reshape(batch, *size, -1)
        frames = self.temporal_patch_size
        x = Patches(self.hidden_size, frames, self.patch_size, name="patch_embed.proj")(patches)
        features = self.hidden_size // self.num_heads // 2
        places = np.indices(size).reshape(2, -1).T.astype(np.float32)
        angles = axes_angles(jnp.asarray(places), (features, features), THETA)
        side = self.window_size // self.patch_size // self.spatial_merge_size * self.spatial_merge_size
        for i in range(self.depth):
            whole = i in self.fullatt_block_indexes
            block = Block(self.num_heads, self.intermediate_size, self.hidden_act, name=f"blocks.{i}")
            x = block(x, angles, max(size) if whole else side)
        x = to_patches(RMSNorm(name="merger.ln_q")(x), self.spatial_merge_size)
        x = gelu(Linear(x.shape[-1], name="merger.mlp.0")(x))
        return Linear(self.out_hidden_size, name="merger.mlp.2")(x)

    @property
    def step(self) -> int:
        """How many pixels a token is wide."""
        return self.patch_size * self.spatial_merge_size


class Patches(nn.Module):
    """Patches (b, rows, columns, size^2 c) of a picture to (b, rows, columns, features), as of a video that stands."""

    features: int
    frames: int
    size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1] // self.size**2
        kernel = parameter(self, "kernel", uniform, (self.frames, self.size, self.size, channels, self.features))
        still = kernel.astype(jnp.float32).sum(0).reshape(-1, self.features).astype(kernel.dtype)
        return jnp.dot(x.astype(kernel.dtype), still)


class Block(nn.Module):
    """Attention within windows of `side` patches and a gated feed-forward network: (b, rows, columns, c)."""

    heads: int
    intermediate_size: int
    act_fn: str

    @nn.compact
    def __call__(self, x: jax.Array, angles: jax.Array, side: int) -> jax.Array:
        batch, rows, columns, width = x.shape
        qkv = Linear(3 * width, name="attn.qkv")(RMSNorm(name="norm1")(x))
        q, k, v = (split_heads(part, self.heads) for part in jnp.split(qkv.reshape(batch, -1, 3 * width), 3, axis=-1))
        q, k, v = (
            windows(merge_heads(part).reshape(x.shape), side)
            for part in (rotate_halves(q, angles), rotate_halves(k, angles), v)
        )
        there = None
        if rows % side or columns % side:
            there = windows(jnp.ones((batch, rows, columns, 1), bool), side)[:, None, None, :, 0]
        seen = merge_heads(attention(*(split_heads(part, self.heads) for part in (q, k, v)), there))
        x += Linear(width, name="attn.proj")(whole(seen, rows, columns, side))
        y = RMSNorm(name="norm2")(x)
        gate, up = (Linear(self.intermediate_size, name=f"mlp.{name}_proj")(y) for name in ("gate", "up"))
        return x + Linear(width, name="mlp.down_proj")(activation(self.act_fn)(gate) * up)


def windows(x: jax.Array, side: int) -> jax.Array:
    """(b, rows, columns, c) -> (b windows, side^2, c), with zeros below and on the right where they are not whole."""
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % side), (0, -x.shape[2] % side), (0, 0)))
    return to_patches(x, side).reshape(-1, side**2, x.shape[-1])


def whole(x: jax.Array, rows: int, columns: int, side: int) -> jax.Array:
    """The inverse of `windows`: (b windows, side^2, c) -> (b, rows, columns, c)."""
    high, wide = -(-rows // side) * side, -(-columns // side) * side
    count = high * wide // side**2
    x = x.reshape(len(x) // count, count, -1)
    return from_patches(x, high, wide, side)[:, :rows, :columns]
