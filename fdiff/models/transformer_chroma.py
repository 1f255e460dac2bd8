"""ChromaTransformer2DModel: the denoiser of Chroma, FLUX.1 schnell pruned and trained anew."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Count, Layers, between
from fdiff.models.layers.checks import check_axes, require
from fdiff.models.layers.embeddings import TimestepEmbedding, sinusoidal
from fdiff.models.layers.joint_attention import check_sequence
from fdiff.models.layers.linear import Linear
from fdiff.models.layers.modulation import modulated
from fdiff.models.layers.norm import RMSNorm
from fdiff.models.layers.repeated import repeated
from fdiff.models.layers.rotary import axes_angles
from fdiff.models.model import Model
from fdiff.models.transformer_flux import (
    THETA,
    TIME_SCALE,
    Both,
    apart,
    attend_and_feed,
    attend_beside_feeding,
    share,
)

PLACES = 1000  # the steps of the numbers by which the approximator tells places of modulation apart
EPS = float(np.finfo(np.float32).eps)


class ChromaTransformer2DModel(Model):
    """A transformer over the tokens of a picture and of a text, all of its modulation by one small network (Rock 2025).

    hidden_states (b, n, in_channels) are squares of latents; encoder_hidden_states (b, m, joint_attention_dim) is a
    text as T5 reads it; `timestep` (b,) is sigma, from 1, noise, to 0; img_ids (n, 3) and txt_ids (m, 3) say where each
    token is: picture, row, column. `attention_mask` (b, m + n), the text first: tokens of which one is False do not see
    each other; numbers are multiplied, and added to the scores. What a ControlNet gives, arrays (b, n, c), is added
    behind the blocks, each behind an equal share of them. -> (b, n, out_channels).
    """

    ignored_keys: ClassVar[tuple[str, ...]] = ("approximator_in_factor",)  # a quarter of approximator_num_channels

    patch_size: Annotated[int, between(1, 64)] = 1
    in_channels: Count = 64
    out_channels: Count | None = None
    num_layers: Layers = 19
    num_single_layers: Layers = 38
    attention_head_dim: Count = 128
    num_attention_heads: Count = 24
    joint_attention_dim: Count = 4096
    axes_dims_rope: tuple[Count, Count, Count] = (16, 56, 56)
    approximator_num_channels: Count = 64
    approximator_hidden_dim: Count = 5120
    approximator_layers: Layers = 5

    @nn.compact
    def __call__(
        self,
        hidden_states: jax.Array,
        encoder_hidden_states: jax.Array,
        timestep: jax.Array | float,
        img_ids: jax.Array,
        txt_ids: jax.Array,
        attention_mask: jax.Array | None = None,
        controlnet_block_samples: Sequence[jax.Array] = (),
        controlnet_single_block_samples: Sequence[jax.Array] = (),
    ) -> jax.Array:
        self.check_options()
        check_sequence("hidden_states", hidden_states.shape, self.in_channels, img_ids.shape, 3)
        check_sequence(
            "encoder_hidden_states", encoder_hidden_states.shape, self.joint_attention_dim, txt_ids.shape, 3
        )
        width = self.num_attention_heads * self.attention_head_dim
        told = self.told(jnp.broadcast_to(timestep, hidden_states.shape[:1]), hidden_states.dtype)
        single, joint = 3 * self.num_single_layers, 6 * self.num_layers
        x = Linear(width, name="x_embedder")(hidden_states)
        y = Linear(width, name="context_embedder")(encoder_hidden_states)
        angles = axes_angles(jnp.concatenate([txt_ids, img_ids]), self.axes_dims_rope, THETA)
        mask = None if attention_mask is None else attention_mask[:, None, :, None] * attention_mask[:, None, None, :]

        def of_joint(block: Any, both: Both, i: Any) -> Both:
            a, b = (numbers(told, start + 6 * i, 6) for start in (single, single + joint))
            x, y = block(*both, angles, a, b, mask)
            return x + share(controlnet_block_samples, i, self.num_layers), y

        def of_single(block: Any, both: Both, i: Any) -> Both:
            tokens = block(jnp.concatenate(both[::-1], axis=1), angles, numbers(told, 3 * i, 3), mask)
            x, y = apart(tokens, both[1].shape[1])
            return x + share(controlnet_single_block_samples, i, self.num_single_layers), y

        heads = self.num_attention_heads
        both = repeated(
            self, self.num_layers, lambda i: JointBlock(heads, name=f"transformer_blocks.{i}"), of_joint, (x, y)
        )
        x, _ = repeated(
            self, self.num_single_layers, lambda i: SingleBlock(heads, name=f"single_transformer_blocks.{i}"),
            of_single, both,
        )  # fmt: skip
        channels, last = self.out_channels or self.in_channels, numbers(told, told.shape[1] - 2, 2)
        return Linear(self.patch_size**2 * channels, name="proj_out")(modulated(x, last[0], last[1]))

    def told(self, t: jax.Array, dtype: Any) -> jax.Array:
        """What each place of modulation is told of the time (b,): (b, places, width).

        Places: three for each single block, six for the picture in each joint one, six for the text, two for the end.
        """
        count = 3 * self.num_single_layers + 12 * self.num_layers + 2
        features = self.approximator_num_channels // 4
        time, guidance = (
            sinusoidal(one, features, flip_sin_to_cos=True, freq_shift=0)
            for one in (TIME_SCALE * t, jnp.zeros_like(t))  # Chroma was trained without guidance
        )
        places = sinusoidal(PLACES * jnp.arange(count), 2 * features, flip_sin_to_cos=True, freq_shift=0)
        both = jnp.concatenate([time, guidance], axis=-1)[:, None]
        told = jnp.concatenate([
            jnp.broadcast_to(both, (len(t), count, 2 * features)),
            jnp.broadcast_to(places, (len(t), count, 2 * features)),
        ], axis=-1)  # fmt: skip
        width = self.num_attention_heads * self.attention_head_dim
        approximator = Approximator(
            width, self.approximator_hidden_dim, self.approximator_layers, name="distilled_guidance_layer"
        )
        said: jax.Array = approximator(told.astype(dtype))
        return said

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        check_axes(self)
        channels = self.approximator_num_channels
        require(channels % 4 == 0, f"approximator_num_channels is {channels}; it must be a multiple of 4.")

    def example_inputs(self) -> tuple[Any, ...]:
        """One token of either kind."""
        x, y = (np.zeros((1, 1, width), np.float32) for width in (self.in_channels, self.joint_attention_dim))
        ids = np.zeros((1, 3), np.float32)
        return x, y, np.zeros(1, np.float32), ids, ids


def numbers(told: jax.Array, start: Any, count: int) -> list[jax.Array]:
    """What so many places from there on are told, (b, 1, width) each."""
    return jnp.split(jax.lax.dynamic_slice_in_dim(told, start, count, axis=1), count, axis=1)


class Approximator(nn.Module):
    """Time and place (b, k, c) to what modulates: (b, k, features)."""

    features: int
    hidden: int
    layers: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Linear(self.hidden, name="in_proj")(x)
        for i in range(self.layers):
            x += TimestepEmbedding(self.hidden, name=f"layers.{i}")(RMSNorm(EPS, name=f"norms.{i}")(x))
        return Linear(self.features, name="out_proj")(x)


class JointBlock(nn.Module):
    """Pictures x (b, n, c) and a text y (b, m, c) attend to both together, modulated by six numbers a and b each."""

    heads: int

    @nn.compact
    def __call__(
        self, x: jax.Array, y: jax.Array, angles: jax.Array, a: Sequence[jax.Array], b: Sequence[jax.Array],
        mask: jax.Array | None,
    ) -> tuple[jax.Array, jax.Array]:  # fmt: skip
        return attend_and_feed(self.heads, x, y, angles, a, b, mask)


class SingleBlock(nn.Module):
    """Attention and a feed-forward network beside each other, on one normalized input: (b, n, c)."""

    heads: int

    @nn.compact
    def __call__(
        self, x: jax.Array, angles: jax.Array, numbers: Sequence[jax.Array], mask: jax.Array | None
    ) -> jax.Array:
        return attend_beside_feeding(self.heads, x, angles, numbers, mask)
