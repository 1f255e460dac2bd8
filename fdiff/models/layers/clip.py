"""The transformer that CLIP's text and vision towers share (Radford et al. 2021)."""

import flax.linen as nn
import jax

from fdiff.models.layers.activations import activation
from fdiff.models.layers.attention import attention, merge_heads, split_heads
from fdiff.models.layers.linear import Linear
from fdiff.models.layers.norm import LayerNorm
from fdiff.models.layers.repeated import all_repeated


class CLIPLayer(nn.Module):
    """Self-attention and a two-layer network, each on a normalized input and added to it: (b, n, c)."""

    heads: int
    intermediate_size: int
    hidden_act: str
    eps: float

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        width = x.shape[-1]
        y = LayerNorm(self.eps, name="layer_norm1")(x)
        q, k, v = (split_heads(Linear(width, name=f"self_attn.{part}_proj")(y), self.heads) for part in ("q", "k", "v"))
        x += Linear(width, name="self_attn.out_proj")(merge_heads(attention(q, k, v, mask)))
        y = LayerNorm(self.eps, name="layer_norm2")(x)
        y = activation(self.hidden_act)(Linear(self.intermediate_size, name="mlp.fc1")(y))
        return x + Linear(width, name="mlp.fc2")(y)


class CLIPEncoder(nn.Module):
    """CLIPLayer after CLIPLayer: (b, n, c) -> what enters the first one and what leaves each, a tuple."""

    layers: int
    heads: int
    intermediate_size: int
    hidden_act: str
    eps: float

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> tuple[jax.Array, ...]:
        sizes = self.heads, self.intermediate_size, self.hidden_act, self.eps
        states = all_repeated(
            self, self.layers, lambda i: CLIPLayer(*sizes, name=f"layers.{i}"), lambda layer, x, i: layer(x, mask), x
        )
        return (x, *states)
