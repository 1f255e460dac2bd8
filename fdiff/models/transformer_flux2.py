"""Flux2Transformer2DModel: the denoiser of FLUX.2, klein and dev."""

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Count, Epsilon, Layers, Theta, between, some
from fdiff.models.layers.attention import split_heads
from fdiff.models.layers.checks import check_axes
from fdiff.models.layers.embeddings import TimestepEmbedding, sinusoidal
from fdiff.models.layers.joint_attention import JointAttention, check_sequence, turned_attention
from fdiff.models.layers.linear import Linear
from fdiff.models.layers.modulation import Modulation, modulated, swiglu
from fdiff.models.layers.norm import RMSNorm
from fdiff.models.layers.repeated import repeated
from fdiff.models.layers.rotary import axes_angles
from fdiff.models.model import Model

TIME_SCALE = 1000.0


class Flux2Transformer2DModel(Model):
    """A transformer over the tokens of pictures and of a text (Black Forest Labs 2025).

    hidden_states (b, n, in_channels) are latents, a token each, those of pictures to keep to behind them;
    encoder_hidden_states (b, m, joint_attention_dim) are a text; `timestep` (b,) is sigma, from 1, noise, to 0;
    img_ids (n, 4) and txt_ids (m, 4) say where each token is: picture, row, column, place in the text. `guidance` (b,)
    is told to networks that have guidance_embeds. -> (b, n, out_channels).

        velocity = transformer.apply({"params": params}, latents, text, sigma, img_ids, txt_ids)
    """

    patch_size: Annotated[int, between(1, 64)] = 1
    in_channels: Count = 128
    out_channels: Count | None = None
    num_layers: Layers = 8
    num_single_layers: Layers = 48
    attention_head_dim: Count = 128
    num_attention_heads: Count = 48
    joint_attention_dim: Count = 15360
    timestep_guidance_channels: Count = 256
    mlp_ratio: Annotated[float, between(1e-2, 100)] = 3.0
    axes_dims_rope: Annotated[tuple[Count, ...], some(8)] = (32, 32, 32, 32)
    rope_theta: Theta = 2000
    eps: Epsilon = 1e-6
    guidance_embeds: bool = True

    @nn.compact
    def __call__(
        self,
        hidden_states: jax.Array,
        encoder_hidden_states: jax.Array,
        timestep: jax.Array | float,
        img_ids: jax.Array,
        txt_ids: jax.Array,
        guidance: jax.Array | float | None = None,
    ) -> jax.Array:
        self.check(hidden_states.shape, encoder_hidden_states.shape, img_ids.shape, txt_ids.shape, guidance)
        width, batch = self.num_attention_heads * self.attention_head_dim, hidden_states.shape[:1]
        temb = self.embed("timestep_embedder", jnp.broadcast_to(jnp.asarray(timestep), batch))
        if guidance is not None:
            temb += self.embed("guidance_embedder", jnp.broadcast_to(jnp.asarray(guidance), batch))
        picture = Modulation(6, width, False, name="double_stream_modulation_img")(temb)
        words = Modulation(6, width, False, name="double_stream_modulation_txt")(temb)
        single = Modulation(3, width, False, name="single_stream_modulation")(temb)

        x = Linear(width, False, name="x_embedder")(hidden_states)
        y = Linear(width, False, name="context_embedder")(encoder_hidden_states)
        angles = axes_angles(jnp.concatenate([txt_ids, img_ids]), self.axes_dims_rope, self.rope_theta)
        common = self.num_attention_heads, self.mlp_ratio, self.eps
        x, y = repeated(
            self, self.num_layers, lambda i: Flux2TransformerBlock(*common, name=f"transformer_blocks.{i}"),
            lambda block, both, i: block(*both, angles, picture, words), (x, y),
        )  # fmt: skip
        both = repeated(
            self, self.num_single_layers,
            lambda i: Flux2SingleTransformerBlock(*common, name=f"single_transformer_blocks.{i}"),
            lambda block, both, i: block(both, angles, single), jnp.concatenate([y, x], axis=1),
        )  # fmt: skip
        scale, shift = Modulation(2, width, False, name="norm_out")(temb)
        x = modulated(both[:, y.shape[1] :], shift, scale, self.eps)
        return Linear(self.patch_size**2 * (self.out_channels or self.in_channels), False, name="proj_out")(x)

    def embed(self, name: str, numbers: jax.Array) -> jax.Array:
        """Times or guidance scales (b,) as vectors."""
        waves = sinusoidal(TIME_SCALE * numbers, self.timestep_guidance_channels, flip_sin_to_cos=True, freq_shift=0)
        width = self.num_attention_heads * self.attention_head_dim
        return TimestepEmbedding(width, use_bias=False, name=f"time_guidance_embed.{name}")(waves)

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        check_axes(self)

    def check(
        self, x: tuple[int, ...], y: tuple[int, ...], img_ids: tuple[int, ...], txt_ids: tuple[int, ...], guidance: Any
    ) -> None:
        """Refuse options that do not fit together, and inputs that do not fit them."""
        self.check_options()
        axes = len(self.axes_dims_rope)
        check_sequence("hidden_states", x, self.in_channels, img_ids, axes)
        check_sequence("encoder_hidden_states", y, self.joint_attention_dim, txt_ids, axes)
        if (guidance is None) == self.guidance_embeds:
            verb = "needs" if self.guidance_embeds else "takes no"
            raise ValueError(f"This Flux2Transformer2DModel {verb} guidance; see guidance_embeds.")

    def example_inputs(self) -> tuple[Any, ...]:
        """One token of either kind."""
        x, y = (np.zeros((1, 1, width), np.float32) for width in (self.in_channels, self.joint_attention_dim))
        ids = np.zeros((1, len(self.axes_dims_rope)), np.float32)
        return x, y, np.zeros(1, np.float32), ids, ids, np.zeros(1, np.float32) if self.guidance_embeds else None


class Flux2TransformerBlock(nn.Module):
    """Pictures x (b, n, c) and a text y (b, m, c), each with its own weights, attend to both together."""

    heads: int
    mlp_ratio: float
    eps: float

    @nn.compact
    def __call__(
        self, x: jax.Array, y: jax.Array, angles: jax.Array, picture: list[jax.Array], words: list[jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        attend = JointAttention(self.heads, self.eps, False, name="attn")
        seen = attend(
            modulated(x, picture[0], picture[1], self.eps), modulated(y, words[0], words[1], self.eps), angles
        )
        x, y = x + picture[2] * seen[0], y + words[2] * seen[1]
        x += picture[5] * self.feed("ff", modulated(x, picture[3], picture[4], self.eps))
        y += words[5] * self.feed("ff_context", modulated(y, words[3], words[4], self.eps))
        return x, y

    def feed(self, name: str, x: jax.Array) -> jax.Array:
        """Wider, gated by an activation, and narrower."""
        inner = int(x.shape[-1] * self.mlp_ratio)
        y = swiglu(Linear(2 * inner, False, name=f"{name}.linear_in")(x))
        return Linear(x.shape[-1], False, name=f"{name}.linear_out")(y)


class Flux2SingleTransformerBlock(nn.Module):
    """Attention and a feed-forward network beside each other, from one matrix to one matrix (Dehghani et al. 2023)."""

    heads: int
    mlp_ratio: float
    eps: float

    @nn.compact
    def __call__(self, x: jax.Array, angles: jax.Array, numbers: list[jax.Array]) -> jax.Array:
        width, (shift, scale, gate) = x.shape[-1], numbers
        inner = int(width * self.mlp_ratio)
        y = Linear(3 * width + 2 * inner, False, name="attn.to_qkv_mlp_proj")(modulated(x, shift, scale, self.eps))
        *qkv, wide = jnp.split(y, [width, 2 * width, 3 * width], axis=-1)
        q, k, v = (split_heads(part, self.heads) for part in qkv)
        q, k = RMSNorm(self.eps, name="attn.norm_q")(q), RMSNorm(self.eps, name="attn.norm_k")(k)
        seen = turned_attention(q, k, v, angles)
        return x + gate * Linear(width, False, name="attn.to_out")(jnp.concatenate([seen, swiglu(wide)], axis=-1))
