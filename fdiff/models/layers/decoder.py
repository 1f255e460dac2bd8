"""The layers of language models that read from left to right (Touvron et al. 2023)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from fdiff.models.layers.activations import activation
from fdiff.models.layers.attention import attention, merge_heads, split_heads
from fdiff.models.layers.linear import Linear
from fdiff.models.layers.norm import RMSNorm
from fdiff.models.layers.rotary import rotate_halves


class DecoderLayer(nn.Module):
    """Self-attention and a gated feed-forward network, each on a normalized input and added to it: (b, n, c).

    Several heads share one pair of keys and values (Ainslie et al. 2023). `angles` (n, d / 2) turn queries and keys;
    `mask` (1 or b, 1, n, n) is true where a token may look. With `sandwich`, what is added is normalized too, and
    `soft_cap` bounds the scores by cap * tanh(scores / cap) (Gemma 2).
    """

    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    act_fn: str
    eps: float
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: bool = False
    sandwich: bool = False
    norm_offset: float = 0.0
    scale: float | None = None  # of the scores; None: 1 / sqrt(head_dim)
    soft_cap: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array, angles: jax.Array, mask: jax.Array) -> jax.Array:
        y = self.attend(self.norm("input_layernorm", x), angles, mask)
        if self.sandwich:
            x += self.norm("post_attention_layernorm", y)
            return x + self.norm("post_feedforward_layernorm", self.feed(self.norm("pre_feedforward_layernorm", x)))
        x += y
        return x + self.feed(self.norm("post_attention_layernorm", x))

    def norm(self, name: str, x: jax.Array) -> jax.Array:
        """Normalize the last axis."""
        return RMSNorm(self.eps, offset=self.norm_offset, name=name)(x)

    def attend(self, x: jax.Array, angles: jax.Array, mask: jax.Array) -> jax.Array:
        """What the tokens see of those that they may look at; zeros where there are none."""
        sizes = {"q": self.heads, "k": self.kv_heads, "v": self.kv_heads}
        q, k, v = (
            split_heads(Linear(heads * self.head_dim, self.qkv_bias, name=f"self_attn.{name}_proj")(x), heads)
            for name, heads in sizes.items()
        )
        if self.qk_norm:
            q, k = self.norm("self_attn.q_norm", q), self.norm("self_attn.k_norm", k)
        q, k = rotate_halves(q, angles), rotate_halves(k, angles)
        k, v = (jnp.repeat(part, self.heads // self.kv_heads, axis=2) for part in (k, v))
        if self.soft_cap is None:
            y = attention(q, k, v, mask, self.scale)
        else:
            y = capped_attention(q, k, v, mask, self.scale or self.head_dim**-0.5, self.soft_cap)
        y = jnp.where(mask.any(-1).swapaxes(1, 2)[..., None], y, 0)
        return Linear(x.shape[-1], self.out_bias, name="self_attn.o_proj")(merge_heads(y))

    def feed(self, x: jax.Array) -> jax.Array:
        """Wider, gated by an activation, and narrower."""
        gate, up = (Linear(self.intermediate_size, False, name=f"mlp.{name}_proj")(x) for name in ("gate", "up"))
        return Linear(x.shape[-1], False, name="mlp.down_proj")(activation(self.act_fn)(gate) * up)


def capped_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, scale: float, cap: float
) -> jax.Array:
    """`attention` with scores cap * tanh(scores / cap), all at once: for texts, which are short."""
    scores = scale * jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32)
    scores = jnp.where(mask, cap * jnp.tanh(scores / cap), -1e30)
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores).astype(v.dtype), v)
