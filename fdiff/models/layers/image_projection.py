"""What makes tokens of a picture's features, for cross-attention to them (IP-Adapter, Ye et al. 2023)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from fdiff.models.layers.activations import gelu
from fdiff.models.layers.attention import attention, merge_heads, split_heads
from fdiff.models.layers.linear import Linear
from fdiff.models.layers.norm import LayerNorm
from fdiff.models.layers.parameter import parameter

HEAD = 64  # numbers in a head of the resampler's attention


class ImageProjection(nn.Module):
    """One vector of a picture to `tokens` tokens: (b, d) -> (b, tokens, width)."""

    tokens: int
    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Linear(self.tokens * self.width, name="proj")(x)
        return LayerNorm(name="norm")(x.reshape(x.shape[0], self.tokens, self.width))


class Resampler(nn.Module):
    """The patches of a picture to `tokens` tokens, which look at them again and again (IP-Adapter plus).

    (b, n, d) -> (b, tokens, width), by a Perceiver (Jaegle et al. 2021) that is `hidden` wide.
    """

    tokens: int
    width: int
    hidden: int
    depth: int
    heads: int
    inner: int  # features of the feed-forward layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        latents = parameter(self, "latents", nn.initializers.normal(self.hidden**-0.5), (1, self.tokens, self.hidden))
        x = Linear(self.hidden, name="proj_in")(x)
        y = jnp.repeat(latents.astype(x.dtype), x.shape[0], axis=0)
        for i in range(self.depth):
            y += self.look(x, y, f"layers.{i}.0")
            z = LayerNorm(name=f"layers.{i}.1.0")(y)
            z = gelu(Linear(self.inner, use_bias=False, name=f"layers.{i}.1.1")(z))
            y += Linear(self.hidden, use_bias=False, name=f"layers.{i}.1.3")(z)
        return LayerNorm(name="norm_out")(Linear(self.width, name="proj_out")(y))

    def look(self, x: jax.Array, y: jax.Array, name: str) -> jax.Array:
        """Attention of the tokens y to the patches x and to each other."""
        x, y = LayerNorm(name=f"{name}.norm1")(x), LayerNorm(name=f"{name}.norm2")(y)
        features = self.heads * HEAD
        q = Linear(features, use_bias=False, name=f"{name}.to_q")(y)
        both = Linear(2 * features, use_bias=False, name=f"{name}.to_kv")(jnp.concatenate([x, y], axis=1))
        k, v = jnp.split(both, 2, axis=-1)
        q, k, v = (split_heads(part, self.heads) for part in (q, k, v))
        return Linear(self.hidden, use_bias=False, name=f"{name}.to_out")(merge_heads(attention(q, k, v)))
