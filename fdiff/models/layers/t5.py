"""The blocks of T5's encoder (Raffel et al. 2020)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.layers.activations import activation
from fdiff.models.layers.attention import attention, merge_heads, split_heads
from fdiff.models.layers.linear import Embed, Linear
from fdiff.models.layers.norm import RMSNorm


class T5Block(nn.Module):
    """Self-attention and a feed-forward network, each on a normalized input and added to it: (b, n, c).

    `bias` (1 or b, heads, n, n) is added to the scores of the attention, which are not divided by sqrt(d). With
    `num_buckets`, the block adds its own bias for places as well, and returns both together.
    """

    heads: int
    dim_head: int
    d_ff: int
    gated: bool
    act_fn: str
    eps: float
    num_buckets: int | None = None
    max_distance: int = 128

    @nn.compact
    def __call__(self, x: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
        place = "layer.0.SelfAttention"
        if self.num_buckets is not None:
            table = Embed(self.num_buckets, self.heads, name=f"{place}.relative_attention_bias")
            own = table(jnp.asarray(relative_buckets(x.shape[1], self.num_buckets, self.max_distance)))
            bias = bias + own.astype(jnp.float32).transpose(2, 0, 1)[None]
        y = RMSNorm(self.eps, name="layer.0.layer_norm")(x)
        width = self.heads * self.dim_head
        q, k, v = (split_heads(Linear(width, False, name=f"{place}.{part}")(y), self.heads) for part in "qkv")
        x += Linear(x.shape[-1], False, name=f"{place}.o")(merge_heads(attention(q, k, v, bias, 1.0)))
        y = RMSNorm(self.eps, name="layer.1.layer_norm")(x)
        return x + self.feed_forward(y), bias

    def feed_forward(self, x: jax.Array) -> jax.Array:
        """Wider, an activation, and narrower; the last in float32, since float16 is too narrow for it."""
        place = "layer.1.DenseReluDense"
        y = activation(self.act_fn)(Linear(self.d_ff, False, name=f"{place}.wi{'_0' if self.gated else ''}")(x))
        if self.gated:
            y *= Linear(self.d_ff, False, name=f"{place}.wi_1")(x)
        return Linear(x.shape[-1], False, wide=True, name=f"{place}.wo")(y)


def relative_buckets(length: int, num_buckets: int, max_distance: int) -> np.ndarray:
    """In which of the buckets the distance from each place to each other falls: (length, length), key minus query.

    Half of them are for what comes later. Of each half, one half are the distances 0, 1, 2, ..., the other grow
    logarithmically up to max_distance, and the last holds all beyond.
    """
    half = num_buckets // 2
    exact = half // 2
    distance = np.arange(length)[None] - np.arange(length)[:, None]
    far = np.maximum(np.abs(distance), 1).astype(np.float32) / np.float32(exact)
    steps = np.log(far) / np.float32(np.log(max_distance / exact)) * np.float32(half - exact)
    bucket = np.where(np.abs(distance) < exact, np.abs(distance), np.minimum(exact + steps.astype(np.int64), half - 1))
    return (bucket + half * (distance > 0)).astype(np.int32)
