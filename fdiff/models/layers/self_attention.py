"""Attention of the tokens of one stream to each other."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from fdiff.models.layers.attention import attention, merge_heads, split_heads
from fdiff.models.layers.linear import Linear
from fdiff.models.layers.norm import RMSNorm
from fdiff.models.layers.rotary import rotate_pairs


class SelfAttention(nn.Module):
    """Tokens (b, n, c) to what each of them sees of all, or of those that `mask` (b or 1, 1, n or 1, n) lets it see.

    Queries and keys are normalized and, where there are angles (n, d / 2) or (b, n, d / 2), turned by `turn`.
    `kv_heads` keys and values are shared by the heads (Ainslie et al. 2023). With `gated`, what a token sees is
    multiplied by the sigmoid of a map of it. `norm_offset` is what the checkpoint leaves out of the norms' scales.
    `look` is called in place of `attention`, where a mask does not say all.
    """

    heads: int
    eps: float = 1e-6
    kv_heads: int | None = None
    norm_offset: float = 0.0
    gated: bool = False
    turn: Callable[[jax.Array, jax.Array], jax.Array] = rotate_pairs

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        angles: jax.Array | None = None,
        mask: jax.Array | None = None,
        look: Callable[..., jax.Array] = attention,
    ) -> jax.Array:
        width, shared = x.shape[-1], self.kv_heads or self.heads
        q, k, v = (
            split_heads(Linear(width // self.heads * count, False, name=f"to_{name}")(x), count)
            for name, count in (("q", self.heads), ("k", shared), ("v", shared))
        )
        q, k = (
            RMSNorm(self.eps, offset=self.norm_offset, name=f"norm_{name}")(part) for name, part in (("q", q), ("k", k))
        )
        if angles is not None:
            q, k = self.turn(q, angles), self.turn(k, angles)
        k, v = (jnp.repeat(part, self.heads // shared, axis=2) for part in (k, v))
        seen = merge_heads(look(q, k, v, mask))
        if self.gated:
            seen *= jax.nn.sigmoid(Linear(width, False, name="to_gate")(x))
        return Linear(width, False, name="to_out.0")(seen)
