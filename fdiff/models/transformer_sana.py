"""SanaTransformer2DModel: the denoiser of Sana, Sana 1.5 and Sana-Sprint."""

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Channels, Count, Dropout, Epsilon, Factor, Layers, OneOf, Pixels, between
from fdiff.models.layers.attention import Attention, linear_attention
from fdiff.models.layers.checks import require
from fdiff.models.layers.embeddings import TimestepEmbedding, scaled_places, sinusoidal
from fdiff.models.layers.feed_forward import GLUMBConv
from fdiff.models.layers.linear import Conv, Linear
from fdiff.models.layers.modulation import modulated, told_by
from fdiff.models.layers.norm import LayerNorm, RMSNorm
from fdiff.models.layers.patches import from_patches
from fdiff.models.layers.repeated import at, repeated
from fdiff.models.model import Model

FEATURES = 256  # of a number, before it is embedded
HIDDEN = -10000.0  # what is added to the scores of tokens that are none


class Begun(NamedTuple):
    """What the blocks are given, and the time, embedded (b, c)."""

    x: jax.Array  # (b, h, w, c), patches
    text: jax.Array  # (b, m, c)
    mask: jax.Array | None  # what is added to the scores of its tokens
    numbers: jax.Array  # (b, 6, c)
    told: jax.Array


class SanaModel(Model):
    """What the transformer of Sana and its ControlNets share: how they begin, and their blocks."""

    in_channels: Channels = 32
    out_channels: Channels | None = 32
    num_attention_heads: Count = 70
    attention_head_dim: Count = 32
    num_layers: Layers = 20
    num_cross_attention_heads: Count = 20
    cross_attention_head_dim: Count = 112
    cross_attention_dim: Count = 2240
    caption_channels: Count = 2304
    mlp_ratio: Factor = 2.5
    dropout: Dropout = 0.0
    attention_bias: bool = False
    sample_size: Pixels = 32
    patch_size: Annotated[int, between(1, 64)] = 1
    norm_elementwise_affine: bool = False
    norm_eps: Epsilon = 1e-6
    interpolation_scale: Factor | None = None

    def begun(
        self, x: jax.Array, text: jax.Array, timestep: jax.Array | float, mask: jax.Array | None,
        seen: jax.Array | None = None, guidance: jax.Array | float | None = None,
    ) -> Begun:  # fmt: skip
        """What the blocks are given of latents x (b, h, w, in_channels), and of `seen`, which are added as patches."""
        self.check_inputs(x.shape, text.shape)
        batch = len(x)
        patches = Conv(self.width, self.patch_size, self.patch_size, 0, name="patch_embed.proj")

        def placed(x: jax.Array) -> jax.Array:
            x = patches(x)
            if self.interpolation_scale is None:
                return x
            base, (rows, columns) = self.sample_size // self.patch_size, x.shape[1:3]
            return x + scaled_places(rows, columns, self.width, base, self.interpolation_scale).astype(x.dtype)

        x = placed(x)
        if seen is not None:
            x = x + Linear(self.width, name="input_block")(placed(seen))

        def embedded(name: str, number: jax.Array | float) -> jax.Array:
            number = jnp.broadcast_to(jnp.asarray(number), (batch,))
            waves = sinusoidal(number, FEATURES, flip_sin_to_cos=True, freq_shift=0).astype(x.dtype)
            return TimestepEmbedding(self.width, name=f"time_embed.{name}")(waves)

        if guidance is None:
            told = embedded("emb.timestep_embedder", timestep)
        else:
            told = embedded("timestep_embedder", timestep) + embedded("guidance_embedder", guidance)
        numbers = Linear(6 * self.width, name="time_embed.linear")(nn.silu(told)).reshape(batch, 6, self.width)
        text = TimestepEmbedding(self.width, "gelu_pytorch_tanh", name="caption_projection")(text)
        text = RMSNorm(1e-5, name="caption_norm")(text)
        added = None if mask is None else (1 - jnp.asarray(mask, x.dtype))[:, None, None] * HIDDEN
        return Begun(x, text, added, numbers, told)

    @property
    def width(self) -> int:
        """Features of a patch."""
        return self.num_attention_heads * self.attention_head_dim

    def block(self, i: int, qk_norm: str | None = None) -> "SanaTransformerBlock":
        """The i-th block."""
        return SanaTransformerBlock(
            self.num_attention_heads, self.attention_head_dim, self.num_cross_attention_heads,
            self.cross_attention_head_dim, self.mlp_ratio, self.dropout, self.attention_bias,
            self.norm_elementwise_affine, self.norm_eps, qk_norm, name=f"transformer_blocks.{i}",
        )  # fmt: skip

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        wide, text = f"num_attention_heads * attention_head_dim is {self.width}", self.cross_attention_dim
        require(text == self.width, f"cross_attention_dim is {text} and {wide}; they must be equal.")
        good = self.interpolation_scale is None or self.width % 4 == 0
        require(good, f"{wide}; it must be a multiple of 4 with interpolation_scale.")
        size, patch = self.sample_size, self.patch_size
        require(size % patch == 0, f"sample_size {size} is no multiple of patch_size {patch}; choose one.")

    def check_inputs(self, shape: tuple[int, ...], text: tuple[int, ...]) -> None:
        """Refuse options that do not fit together, and inputs of the wrong shape."""
        self.check_options()
        size = self.patch_size
        if len(shape) != 4 or shape[3] != self.in_channels or shape[1] % size or shape[2] % size:
            raise ValueError(f"hidden_states must be (batch, height, width, {self.in_channels}), height and width "
                             f"multiples of {size}; it is {shape}.")
        if len(text) != 3 or text[2] != self.caption_channels:
            raise ValueError(f"encoder_hidden_states must be (batch, number, {self.caption_channels}); it is {text}.")

    def example_inputs(self) -> tuple[Any, ...]:
        """One patch, one token and a time."""
        x = np.zeros((1, self.patch_size, self.patch_size, self.in_channels), np.float32)
        text = np.zeros((1, 1, self.caption_channels), np.float32)
        return x, text, np.ones(1, np.float32), np.ones((1, 1), np.int32)


class SanaTransformer2DModel(SanaModel):
    """A transformer over noisy latents whose time grows with their number alone (Xie et al. 2024, section 2.2).

    hidden_states (b, h, w, in_channels), h and w multiples of patch_size -> (b, h, w, out_channels).
    encoder_hidden_states (b, m, caption_channels) are a text as Gemma 2 reads it, encoder_attention_mask (b, m) is 0
    where they are of no token; `timestep` is a number or (b,). `guidance`, a number or (b,), is told to models with
    `guidance_embeds` (Chen et al. 2025). What a ControlNet says, (b, h, w, c) each, is added behind the second block
    and those after it. Dropout acts where `apply` is given rngs={"dropout": key}.

        name = "Efficient-Large-Model/Sana_1600M_1024px_diffusers"
        model, params = SanaTransformer2DModel.from_pretrained(name, subfolder="transformer")
    """

    guidance_embeds: bool = False
    guidance_embeds_scale: Factor = 0.1  # by which pipelines multiply it
    qk_norm: Annotated[str, OneOf(("rms_norm_across_heads",))] | None = None
    timestep_scale: Factor = 1.0  # by which pipelines multiply it

    @nn.compact
    def __call__(
        self,
        hidden_states: jax.Array,
        encoder_hidden_states: jax.Array,
        timestep: jax.Array | float,
        encoder_attention_mask: jax.Array | None = None,
        guidance: jax.Array | float | None = None,
        controlnet_block_samples: Sequence[jax.Array] = (),
    ) -> jax.Array:
        if self.guidance_embeds != (guidance is not None):
            wants = "needs guidance" if self.guidance_embeds else "takes no guidance"
            raise ValueError(f"This SanaTransformer2DModel {wants}; see guidance_embeds in its config.json.")
        batch, height, width, _ = hidden_states.shape
        x, text, mask, numbers, told = self.begun(
            hidden_states, encoder_hidden_states, timestep, encoder_attention_mask, guidance=guidance
        )
        said = controlnet_block_samples

        def step(block: Any, x: jax.Array, i: Any) -> jax.Array:
            x = block(x, text, mask, numbers)
            if not said:
                return x
            if isinstance(i, int):
                return x + said[i - 1].astype(x.dtype) if 0 < i <= len(said) else x
            return x + jnp.where((i > 0) & (i <= len(said)), at(said, i - 1), 0).astype(x.dtype)

        x = repeated(self, self.num_layers, lambda i: self.block(i, self.qk_norm), step, x)
        shift, scale = told_by(self, told[:, None], 2)
        x = modulated(x.reshape(batch, -1, self.width), shift, scale)
        x = Linear(self.patch_size**2 * (self.out_channels or self.in_channels), name="proj_out")(x)
        return from_patches(x, height, width, self.patch_size)

    def example_inputs(self) -> tuple[Any, ...]:
        """One patch, one token and a time, and guidance."""
        return *super().example_inputs(), np.ones(1, np.float32) if self.guidance_embeds else None


class SanaTransformerBlock(nn.Module):
    """Patches x (b, h, w, c) look at all by linear attention, at a text (b, m, c), and at those beside them.

    `numbers` (b, 6, c), which all blocks share, and a table of the block's own say how the first and the last are
    shifted, scaled and gated (adaLN-single); `mask` is that of `attention`, of the text.
    """

    heads: int
    dim_head: int
    text_heads: int
    text_dim_head: int
    mlp_ratio: float
    dropout: float
    attention_bias: bool
    affine: bool
    eps: float
    qk_norm: str | None

    @nn.compact
    def __call__(self, x: jax.Array, text: jax.Array, mask: jax.Array | None, numbers: jax.Array) -> jax.Array:
        told, shape = told_by(self, numbers, 6), x.shape
        x = x.reshape(shape[0], -1, shape[3])
        how: dict[str, Any] = {"dropout": self.dropout, "qk_norm": self.qk_norm}
        itself = Attention(self.heads, self.dim_head, self.attention_bias, attend=linear_attention, name="attn1", **how)
        seen = itself(modulated(x, told[0], told[1], self.eps))
        if x.dtype == jnp.float16:  # in which the published weights overflow
            seen = jnp.clip(seen, jnp.finfo(x.dtype).min, jnp.finfo(x.dtype).max)
        x += told[2] * seen
        x += Attention(self.text_heads, self.text_dim_head, True, name="attn2", **how)(x, text, mask)
        y = LayerNorm(self.eps, self.affine, name="norm2")(x) * (1 + told[4]) + told[3]
        y = GLUMBConv(self.mlp_ratio, name="ff")(y.reshape(shape)).reshape(x.shape)
        return (x + told[5] * y).reshape(shape)
