"""FluxTransformer2DModel: the denoiser of FLUX.1, dev, schnell, Krea, Fill and Kontext."""

from collections.abc import Sequence
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Count, Layers, between
from fdiff.models.layers.activations import gelu_tanh
from fdiff.models.layers.attention import split_heads
from fdiff.models.layers.checks import check_axes
from fdiff.models.layers.embeddings import TimestepEmbedding, sinusoidal
from fdiff.models.layers.feed_forward import FeedForward
from fdiff.models.layers.joint_attention import JointAttention, check_sequence, turned_attention
from fdiff.models.layers.linear import Linear
from fdiff.models.layers.modulation import Modulation, modulated
from fdiff.models.layers.norm import RMSNorm
from fdiff.models.layers.repeated import at, repeated
from fdiff.models.layers.rotary import axes_angles
from fdiff.models.model import Model

TIME_SCALE = 1000.0
TIME_FEATURES = 256
THETA = 10000.0
MLP_RATIO = 4

Both = tuple[jax.Array, jax.Array]  # the tokens of a picture and of a text


class FluxTransformer2DModel(Model):
    """A transformer over the tokens of a picture and of a text (Black Forest Labs 2024).

    hidden_states (b, n, in_channels) are squares of latents; encoder_hidden_states (b, m, joint_attention_dim) and
    pooled_projections (b, pooled_projection_dim) are a text as T5 and CLIP read it; `timestep` (b,) is sigma, from 1,
    noise, to 0; img_ids (n, 3) and txt_ids (m, 3) say where each token is: picture, row, column. `guidance` (b,) is
    told to networks that have guidance_embeds. What a ControlNet gives, arrays (b, n, c), is added behind the blocks,
    each behind an equal share of them. -> (b, n, out_channels).
    """

    patch_size: Annotated[int, between(1, 64)] = 1
    in_channels: Count = 64
    out_channels: Count | None = None
    num_layers: Layers = 19
    num_single_layers: Layers = 38
    attention_head_dim: Count = 128
    num_attention_heads: Count = 24
    joint_attention_dim: Count = 4096
    pooled_projection_dim: Count = 768
    guidance_embeds: bool = False
    axes_dims_rope: tuple[Count, Count, Count] = (16, 56, 56)

    @nn.compact
    def __call__(
        self,
        hidden_states: jax.Array,
        encoder_hidden_states: jax.Array,
        pooled_projections: jax.Array,
        timestep: jax.Array | float,
        img_ids: jax.Array,
        txt_ids: jax.Array,
        guidance: jax.Array | float | None = None,
        controlnet_block_samples: Sequence[jax.Array] = (),
        controlnet_single_block_samples: Sequence[jax.Array] = (),
    ) -> jax.Array:
        self.check_options()
        check_sequence("hidden_states", hidden_states.shape, self.in_channels, img_ids.shape, 3)
        check_sequence(
            "encoder_hidden_states", encoder_hidden_states.shape, self.joint_attention_dim, txt_ids.shape, 3
        )
        width = self.num_attention_heads * self.attention_head_dim
        temb = told(self, width, hidden_states.shape[:1], timestep, guidance, pooled_projections)
        x = Linear(width, name="x_embedder")(hidden_states)
        y = Linear(width, name="context_embedder")(encoder_hidden_states)
        angles = axes_angles(jnp.concatenate([txt_ids, img_ids]), self.axes_dims_rope, THETA)

        def joint(block: Any, both: Both, i: Any) -> Both:
            x, y = block(*both, angles, temb)
            return x + share(controlnet_block_samples, i, self.num_layers), y

        def single(block: Any, both: Both, i: Any) -> Both:
            x, y = apart(block(jnp.concatenate(both[::-1], axis=1), angles, temb), both[1].shape[1])
            return x + share(controlnet_single_block_samples, i, self.num_single_layers), y

        heads = self.num_attention_heads
        both = repeated(
            self, self.num_layers, lambda i: FluxTransformerBlock(heads, name=f"transformer_blocks.{i}"), joint, (x, y)
        )
        x, _ = repeated(
            self, self.num_single_layers,
            lambda i: FluxSingleTransformerBlock(heads, name=f"single_transformer_blocks.{i}"), single, both,
        )  # fmt: skip
        scale, shift = Modulation(2, width, name="norm_out")(temb)
        channels = self.out_channels or self.in_channels
        return Linear(self.patch_size**2 * channels, name="proj_out")(modulated(x, shift, scale))

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        check_axes(self)

    def example_inputs(self) -> tuple[Any, ...]:
        """One token of either kind."""
        x, y = (np.zeros((1, 1, width), np.float32) for width in (self.in_channels, self.joint_attention_dim))
        pooled, ids = np.zeros((1, self.pooled_projection_dim), np.float32), np.zeros((1, 3), np.float32)
        guidance = np.zeros(1, np.float32) if self.guidance_embeds else None
        return x, y, pooled, np.zeros(1, np.float32), ids, ids, guidance


class FluxTransformerBlock(nn.Module):
    """Pictures x (b, n, c) and a text y (b, m, c), each with its own weights, attend to both together."""

    heads: int

    @nn.compact
    def __call__(
        self, x: jax.Array, y: jax.Array, angles: jax.Array, temb: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        a, b = (Modulation(6, x.shape[-1], name=name)(temb) for name in ("norm1", "norm1_context"))
        return attend_and_feed(self.heads, x, y, angles, a, b)


class FluxSingleTransformerBlock(nn.Module):
    """Attention and a feed-forward network beside each other, on one normalized input: (b, n, c)."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array, angles: jax.Array, temb: jax.Array) -> jax.Array:
        return attend_beside_feeding(self.heads, x, angles, Modulation(3, x.shape[-1], name="norm")(temb))


def attend_and_feed(
    heads: int, x: jax.Array, y: jax.Array, angles: jax.Array, a: Sequence[jax.Array], b: Sequence[jax.Array],
    mask: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """What a joint block does, modulated by six numbers each; its layers belong to the module that calls."""
    seen = JointAttention(heads, name="attn")(modulated(x, a[0], a[1]), modulated(y, b[0], b[1]), angles, mask)
    x, y = x + a[2] * seen[0], y + b[2] * seen[1]
    feed, feed_text = (
        FeedForward(mult=MLP_RATIO, activation_fn="gelu-approximate", name=name) for name in ("ff", "ff_context")
    )
    return x + a[5] * feed(modulated(x, a[3], a[4])), y + b[5] * feed_text(modulated(y, b[3], b[4]))


def attend_beside_feeding(
    heads: int, x: jax.Array, angles: jax.Array, numbers: Sequence[jax.Array], mask: jax.Array | None = None
) -> jax.Array:
    """What a single block does, modulated by three numbers; its layers belong to the module that calls."""
    width, (shift, scale, gate) = x.shape[-1], numbers
    y = modulated(x, shift, scale)
    q, k, v = (split_heads(Linear(width, name=f"attn.to_{part}")(y), heads) for part in "qkv")
    q, k = RMSNorm(name="attn.norm_q")(q), RMSNorm(name="attn.norm_k")(k)
    wide = gelu_tanh(Linear(MLP_RATIO * width, name="proj_mlp")(y))
    both = jnp.concatenate([turned_attention(q, k, v, angles, mask), wide], axis=-1)
    return x + gate * Linear(width, name="proj_out")(both)


def told(
    model: Any, width: int, batch: tuple[int, ...], timestep: jax.Array | float, guidance: jax.Array | float | None,
    text: jax.Array,
) -> jax.Array:  # fmt: skip
    """Time, guidance and text as one vector (b, width); its layers belong to the module that calls."""
    if (guidance is None) == model.guidance_embeds:
        verb = "needs" if model.guidance_embeds else "takes no"
        raise ValueError(f"This {type(model).__name__} {verb} guidance; see guidance_embeds.")
    numbers = {"timestep_embedder": timestep, "guidance_embedder": guidance}
    temb = TimestepEmbedding(width, name="time_text_embed.text_embedder")(text)
    for name, number in numbers.items():
        if number is not None:
            t = TIME_SCALE * jnp.broadcast_to(jnp.asarray(number), batch)
            waves = sinusoidal(t, TIME_FEATURES, flip_sin_to_cos=True, freq_shift=0)
            temb += TimestepEmbedding(width, name=f"time_text_embed.{name}")(waves)
    return temb


def apart(both: jax.Array, length: int) -> Both:
    """Tokens (b, m + n, c) of which the first m, `length`, are a text: those of the picture, and these."""
    return both[:, length:], both[:, :length]


def share(samples: Sequence[jax.Array], block: Any, blocks: int) -> jax.Array | float:
    """What of the samples is added behind a block: each serves ceil(blocks / samples) blocks, one after the other."""
    return at(samples, block // -(-blocks // len(samples))) if samples else 0.0
