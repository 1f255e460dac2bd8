"""The transformers inside text-conditional U-Nets."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from fdiff.models.layers.attention import Attention
from fdiff.models.layers.feed_forward import FeedForward
from fdiff.models.layers.linear import Conv, Linear
from fdiff.models.layers.norm import GroupNorm, LayerNorm
from fdiff.models.layers.repeated import repeated

# So many tokens are text, for the second part of a dual transformer; the others are an image, for the first.
DUAL_TEXT_TOKENS = 77
DUAL_SHARE = 0.5


class BasicTransformerBlock(nn.Module):
    """Attention to itself, attention to a context, a feed-forward layer; each normalized and added to x.

    x (b, n, c), context (b, m, d). Without a context, both attend to x; with only_cross_attention, both to
    the context. `context_mask` is the mask of the second, `mask` that of the first. Where a variable `skip`
    (b,) of a collection "attention" is true, the block does nothing.
    """

    heads: int
    dim_head: int
    only_cross_attention: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        context: jax.Array | None = None,
        context_mask: jax.Array | None = None,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        before = x
        attn1 = Attention(self.heads, self.dim_head, name="attn1")
        attn2 = Attention(self.heads, self.dim_head, name="attn2")
        own = context if self.only_cross_attention else None
        x += attn1(LayerNorm(name="norm1")(x), own, mask)
        x += attn2(LayerNorm(name="norm2")(x), context, context_mask)
        x += FeedForward(name="ff")(LayerNorm(name="norm3")(x))
        if self.has_variable("attention", "skip"):
            x = jnp.where(self.get_variable("attention", "skip")[:, None, None], before, x)
        return x


class Transformer2DModel(nn.Module):
    """Transformer blocks over the positions of a picture, added to it: (b, h, w, c) -> (b, h, w, c)."""

    heads: int
    dim_head: int
    num_layers: int = 1
    norm_num_groups: int = 32
    use_linear_projection: bool = False
    only_cross_attention: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        context: jax.Array | None = None,
        context_mask: jax.Array | None = None,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        residual, inner = x, self.heads * self.dim_head
        x = GroupNorm(self.norm_num_groups, 1e-6, name="norm")(x)
        x = self.project(x, inner, "proj_in").reshape(x.shape[0], -1, inner)
        how = self.heads, self.dim_head, self.only_cross_attention
        x = repeated(
            self, self.num_layers, lambda i: BasicTransformerBlock(*how, name=f"transformer_blocks.{i}"),
            lambda block, x, i: block(x, context, context_mask, mask), x,
        )  # fmt: skip
        x = self.project(x.reshape(*residual.shape[:-1], inner), residual.shape[-1], "proj_out")
        return x + residual

    def project(self, x: jax.Array, features: int, name: str) -> jax.Array:
        """A linear map of the channels, which older checkpoints hold as a convolution."""
        if self.use_linear_projection:
            return Linear(features, name=name)(x)
        return Conv(features, 1, padding=0, name=name)(x)


class DualTransformer2DModel(nn.Module):
    """Two transformers, one for text and one for images, mixed (Versatile Diffusion, Xu et al. 2022)."""

    heads: int
    dim_head: int
    norm_num_groups: int = 32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        context: jax.Array,
        context_mask: jax.Array | None = None,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        if context_mask is not None or mask is not None:
            raise ValueError("U-Nets with dual_cross_attention take no masks; leave them out.")
        text, image = context[:, :DUAL_TEXT_TOKENS], context[:, DUAL_TEXT_TOKENS:]
        parts = [
            Transformer2DModel(
                self.heads, self.dim_head, norm_num_groups=self.norm_num_groups, name=f"transformers.{i}"
            )(x, tokens)
            for i, tokens in enumerate((image, text))
        ]
        return parts[1] * DUAL_SHARE + parts[0] * (1 - DUAL_SHARE)
