"""Attention of pictures and a text to both together, each with its own weights (Esser et al. 2024)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from fdiff.models.layers.attention import attention, merge_heads, split_heads
from fdiff.models.layers.linear import Linear
from fdiff.models.layers.norm import RMSNorm
from fdiff.models.layers.rotary import rotate_pairs


class JointAttention(nn.Module):
    """Tokens of pictures x (b, n, c) and of a text y (b, m, c) to what each of them sees of both.

    Queries and keys are normalized, and turned by angles (m + n, d / 2), those of the text first, where there are any;
    `mask` is that of `attention`, in the same order. Without `answers` the text is looked at and sees nothing.
    """

    heads: int
    eps: float = 1e-6
    use_bias: bool = True
    normalizes: bool = True
    answers: bool = True

    @nn.compact
    def __call__(
        self, x: jax.Array, y: jax.Array, angles: jax.Array | None = None, mask: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        text = self.project(y, ("add_q_proj", "add_k_proj", "add_v_proj"), ("norm_added_q", "norm_added_k"))
        picture = self.project(x, ("to_q", "to_k", "to_v"), ("norm_q", "norm_k"))
        q, k, v = (jnp.concatenate(pair, axis=1) for pair in zip(text, picture, strict=True))
        seen, length = turned_attention(q, k, v, angles, mask), y.shape[1]
        x = Linear(x.shape[-1], self.use_bias, name="to_out.0")(seen[:, length:])
        if not self.answers:
            return x, y
        return x, Linear(y.shape[-1], self.use_bias, name="to_add_out")(seen[:, :length])

    def project(self, x: jax.Array, maps: tuple[str, str, str], norms: tuple[str, str]) -> list[jax.Array]:
        """Queries, keys and values (b, n, heads, d) by the layers of those names."""
        q, k, v = (split_heads(Linear(x.shape[-1], self.use_bias, name=name)(x), self.heads) for name in maps)
        if not self.normalizes:
            return [q, k, v]
        return [RMSNorm(self.eps, name=norms[0])(q), RMSNorm(self.eps, name=norms[1])(k), v]


def turned_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, angles: jax.Array | None, mask: jax.Array | None = None
) -> jax.Array:
    """Attention with queries and keys turned by angles, if any: (b, n, heads, d) -> (b, n, heads * d)."""
    if angles is not None:
        q, k = rotate_pairs(q, angles), rotate_pairs(k, angles)
    return merge_heads(attention(q, k, v, mask))


def check_sequence(name: str, shape: tuple[int, ...], width: int, ids: tuple[int, ...], axes: int) -> None:
    """Refuse tokens of another width, and places that are not one for each, with a number for each axis."""
    if len(shape) != 3 or shape[2] != width or ids != (shape[1], axes):
        raise ValueError(
            f"{name} must be (batch, number, {width}), with ids (number, {axes}); they are {shape} and {ids}."
        )
