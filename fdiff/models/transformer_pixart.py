"""PixArtTransformer2DModel: the denoiser of PixArt-alpha and PixArt-Sigma."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Channels, Count, Dropout, Epsilon, Factor, Layers, OneOf, Pixels, between
from fdiff.models.layers.attention import Attention
from fdiff.models.layers.checks import require
from fdiff.models.layers.embeddings import TimestepEmbedding, scaled_places, sinusoidal
from fdiff.models.layers.feed_forward import ACTIVATIONS, FeedForward
from fdiff.models.layers.linear import Conv, Linear
from fdiff.models.layers.modulation import modulated, told_by
from fdiff.models.layers.norm import LayerNorm
from fdiff.models.layers.patches import from_patches
from fdiff.models.layers.repeated import repeated
from fdiff.models.model import Model

FEATURES = 256  # of a number, before it is embedded
HIDDEN = -10000.0  # what is added to the scores of tokens that are none


class PixArtTransformer2DModel(Model):
    """A transformer over the patches of noisy latents, which look at a text (Chen et al. 2023, section 2.3).

    hidden_states (b, h, w, in_channels), h and w multiples of patch_size -> (b, h, w, out_channels).
    encoder_hidden_states (b, m, caption_channels) are a text as T5 reads it, encoder_attention_mask (b, m) is 0 where
    they are of no token; `timestep` is a number or (b,), from 0 to 1000, noise. `resolution` (b, 2), height and width
    in pixels, is told to models of pictures of several shapes, those with `use_additional_conditions`; null stands for
    a sample_size of 128. Dropout acts where `apply` is given rngs={"dropout": key}.

        name = "PixArt-alpha/PixArt-XL-2-1024-MS"
        model, params = PixArtTransformer2DModel.from_pretrained(name, subfolder="transformer")
    """

    # Of the Transformer2DModel that it was once a kind of; diffusers 0.42 reads none of them for PixArt.
    ignored_keys: ClassVar[tuple[str, ...]] = (
        "double_self_attention", "num_vector_embeds", "only_cross_attention", "use_linear_projection",
    )  # fmt: skip

    num_attention_heads: Count = 16
    attention_head_dim: Count = 72
    in_channels: Channels = 4
    out_channels: Channels | None = 8
    num_layers: Layers = 28
    dropout: Dropout = 0.0
    norm_num_groups: Count = 32  # which nothing reads
    cross_attention_dim: Count = 1152
    attention_bias: bool = True
    sample_size: Pixels = 128
    patch_size: Annotated[int, between(1, 64)] = 2
    activation_fn: Annotated[str, OneOf(ACTIVATIONS)] = "gelu-approximate"
    num_embeds_ada_norm: Count | None = 1000  # which nothing reads
    upcast_attention: bool = False  # the softmax is float32 always
    norm_type: Annotated[str, OneOf(("ada_norm_single",))] = "ada_norm_single"
    norm_elementwise_affine: bool = False
    norm_eps: Epsilon = 1e-6
    interpolation_scale: Factor | None = None
    use_additional_conditions: bool | None = None
    caption_channels: Count | None = None
    attention_type: Annotated[str, OneOf(("default",))] | None = "default"

    @nn.compact
    def __call__(
        self,
        hidden_states: jax.Array,
        encoder_hidden_states: jax.Array,
        timestep: jax.Array | float,
        encoder_attention_mask: jax.Array | None = None,
        resolution: jax.Array | None = None,
    ) -> jax.Array:
        self.check(hidden_states.shape, encoder_hidden_states.shape, resolution)
        batch, height, width, _ = hidden_states.shape
        x = Conv(self.width, self.patch_size, self.patch_size, 0, name="pos_embed.proj")(hidden_states)
        x = x + self.places(*x.shape[1:3]).astype(x.dtype)
        x = x.reshape(batch, -1, self.width)
        told = TimeAndSize(self.width, name="adaln_single.emb")(
            jnp.broadcast_to(jnp.asarray(timestep), (batch,)), resolution if self.told_size else None, x.dtype
        )
        numbers = Linear(6 * self.width, name="adaln_single.linear")(nn.silu(told)).reshape(batch, 6, self.width)
        text, mask = encoder_hidden_states, encoder_attention_mask
        if self.caption_channels is not None:
            text = TimestepEmbedding(self.width, "gelu_pytorch_tanh", name="caption_projection")(text)
        if mask is not None:
            mask = (1 - jnp.asarray(mask, x.dtype))[:, None, None] * HIDDEN
        x = repeated(self, self.num_layers, self.block, lambda block, x, i: block(x, text, mask, numbers), x)
        shift, scale = told_by(self, told[:, None], 2)
        x = Linear(self.patch_size**2 * (self.out_channels or self.in_channels), name="proj_out")(
            modulated(x, shift, scale)
        )
        return from_patches(x, height, width, self.patch_size)

    @property
    def width(self) -> int:
        """Features of a patch."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def told_size(self) -> bool:
        """Whether it is told the size of the picture."""
        told = self.use_additional_conditions
        return self.sample_size == 128 if told is None else told

    def block(self, i: int) -> "PixArtBlock":
        """The i-th block."""
        return PixArtBlock(
            self.num_attention_heads, self.attention_head_dim, self.dropout, self.attention_bias, self.activation_fn,
            self.norm_elementwise_affine, self.norm_eps, name=f"transformer_blocks.{i}",
        )  # fmt: skip

    def places(self, rows: int, columns: int) -> jax.Array:
        """Where patches are (rows, columns, width): sin and cos of the column, then of the row, in patches of a picture
        of 512 x 512 if interpolation_scale is not given (Chen et al. 2024, section 3.2).
        """
        scale = self.interpolation_scale or max(self.sample_size // 64, 1)
        return scaled_places(rows, columns, self.width, self.sample_size // self.patch_size, scale)

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        wide = f"num_attention_heads * attention_head_dim is {self.width}"
        require(self.width % 4 == 0, f"{wide}; it must be a multiple of 4.")
        good = not self.told_size or self.width % 3 == 0
        require(good, f"{wide}; it must be a multiple of 3 with use_additional_conditions.")
        size, patch, text = self.sample_size, self.patch_size, self.cross_attention_dim
        require(size % patch == 0, f"sample_size {size} is no multiple of patch_size {patch}; choose one.")
        good = self.caption_channels is None or text == self.width
        require(good, f"cross_attention_dim is {text} and {wide}; with caption_channels they must be equal.")

    def check(self, shape: tuple[int, ...], text: tuple[int, ...], resolution: Any) -> None:
        """Refuse options that do not fit together, and inputs of the wrong shape."""
        self.check_options()
        size, channels = self.patch_size, self.caption_channels or self.cross_attention_dim
        if len(shape) != 4 or shape[3] != self.in_channels or shape[1] % size or shape[2] % size:
            raise ValueError(f"hidden_states must be (batch, height, width, {self.in_channels}), height and width "
                             f"multiples of {size}; it is {shape}.")
        if len(text) != 3 or text[2] != channels:
            raise ValueError(f"encoder_hidden_states must be (batch, number, {channels}); it is {text}.")
        if self.told_size and np.shape(resolution) != (shape[0], 2):
            raise ValueError(f"This PixArtTransformer2DModel needs resolution, the height and the width in pixels, "
                             f"({shape[0]}, 2); its shape is {np.shape(resolution)}.")

    def example_inputs(self) -> tuple[Any, ...]:
        """One patch, one token and a time, and a size."""
        x = np.zeros((1, self.patch_size, self.patch_size, self.in_channels), np.float32)
        text = np.zeros((1, 1, self.caption_channels or self.cross_attention_dim), np.float32)
        return x, text, np.ones(1, np.int32), np.ones((1, 1), np.int32), np.ones((1, 2), np.float32)


class TimeAndSize(nn.Module):
    """Time t (b,) and, where it is told, a size in pixels (b, 2) as one vector (b, features).

    A third of what is added to the time is of the height, one of the width, and one of their quotient.
    """

    features: int

    @nn.compact
    def __call__(self, t: jax.Array, size: jax.Array | None, dtype: Any) -> jax.Array:
        def embed(name: str, numbers: jax.Array, features: int) -> jax.Array:
            waves = sinusoidal(numbers, FEATURES, flip_sin_to_cos=True, freq_shift=0).astype(dtype)
            return TimestepEmbedding(features, name=name)(waves).reshape(len(t), -1)

        told = embed("timestep_embedder", t, self.features)
        if size is None:
            return told
        size, third = jnp.asarray(size, jnp.float32), self.features // 3
        sides = embed("resolution_embedder", size, third)
        shape = embed("aspect_ratio_embedder", size[:, 0] / size[:, 1], third)
        return told + jnp.concatenate([sides, shape], axis=-1)


class PixArtBlock(nn.Module):
    """Patches x (b, n, c) attend to themselves and to a text (b, m, d), and go through a feed-forward layer.

    `numbers` (b, 6, c), which all blocks share, and a table of the block's own say how the first and the last are
    shifted, scaled and gated (adaLN-single, section 2.3); `mask` is that of `attention`, of the text.
    """

    heads: int
    dim_head: int
    dropout: float
    attention_bias: bool
    activation_fn: str
    affine: bool
    eps: float

    @nn.compact
    def __call__(self, x: jax.Array, text: jax.Array, mask: jax.Array | None, numbers: jax.Array) -> jax.Array:
        def attention(name: str) -> Attention:
            return Attention(self.heads, self.dim_head, self.attention_bias, dropout=self.dropout, name=name)

        a = told_by(self, numbers, 6)
        x += a[2] * attention("attn1")(LayerNorm(self.eps, self.affine, name="norm1")(x) * (1 + a[1]) + a[0])
        x += attention("attn2")(x, text, mask)
        y = LayerNorm(self.eps, self.affine, name="norm2")(x) * (1 + a[4]) + a[3]
        return x + a[5] * FeedForward(activation_fn=self.activation_fn, dropout=self.dropout, name="ff")(y)


def is_pixart(config: Mapping[str, Any]) -> bool:
    """Whether the config of a Transformer2DModel, as it was once called, is that of a PixArt."""
    return config.get("norm_type") == "ada_norm_single" and config.get("patch_size") is not None
