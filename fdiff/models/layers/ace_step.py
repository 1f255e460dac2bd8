"""The layers that ACE-Step's transformer and its encoders share."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fdiff.models.layers.attention import attention, merge_heads, split_heads
from fdiff.models.layers.checks import require
from fdiff.models.layers.linear import Linear
from fdiff.models.layers.norm import RMSNorm
from fdiff.models.layers.rotary import rotate_halves


class AceStepAttention(nn.Module):
    """Attention of x (b, n, c) to itself, turned by angles (n, d / 2), or to a context (b, m, e).

    Queries and keys are normalized; several heads share one pair of keys and values. `mask` is that of `attention`.
    """

    heads: int
    kv_heads: int
    head_dim: int
    use_bias: bool = False
    eps: float = 1e-6

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        context: jax.Array | None = None,
        angles: jax.Array | None = None,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        source = x if context is None else context
        q = self.project("to_q", x, self.heads)
        k, v = (self.project(name, source, self.kv_heads) for name in ("to_k", "to_v"))
        q, k = RMSNorm(self.eps, name="norm_q")(q), RMSNorm(self.eps, name="norm_k")(k)
        if angles is not None:
            q, k = rotate_halves(q, angles), rotate_halves(k, angles)
        k, v = (jnp.repeat(part, self.heads // self.kv_heads, axis=2) for part in (k, v))
        return Linear(x.shape[-1], self.use_bias, name="to_out.0")(merge_heads(attention(q, k, v, mask)))

    def project(self, name: str, x: jax.Array, heads: int) -> jax.Array:
        """(b, n, c) -> (b, n, heads, d)."""
        return split_heads(Linear(heads * self.head_dim, self.use_bias, name=name)(x), heads)


class AceStepMLP(nn.Module):
    """Wider, gated by an activation, and narrower: (b, n, c)."""

    intermediate_size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        gate, up = (Linear(self.intermediate_size, False, name=f"{name}_proj")(x) for name in ("gate", "up"))
        return Linear(x.shape[-1], False, name="down_proj")(nn.silu(gate) * up)


def check_layers(model: Any, number: str) -> None:
    """Refuse heads, and kinds of layers, that do not fit together; `number` is the option of how many layers it has."""
    heads, shared, kinds = model.num_attention_heads, model.num_key_value_heads, model.layer_types
    require(heads % shared == 0, f"num_key_value_heads {shared} must divide num_attention_heads {heads}.")
    require(model.head_dim % 2 == 0, f"head_dim {model.head_dim} must be even, since halves are turned.")
    count = getattr(model, number)
    require(kinds is None or len(kinds) == count, f"layer_types must be as many as {number}, {count}.")


def windows(length: int, reach: int, mask: jax.Array | None = None) -> dict[str, jax.Array]:
    """What is added to scores of tokens, for each kind of layer, (1 or b, 1, n, n): all are seen, or those in `reach`.

    mask (b, n): and only tokens that are not 0. A token that sees none sees the mean of all, as its network was
    trained: what is padded is not masked where it is told to the transformer.
    """
    near = jnp.abs(jnp.arange(length)[:, None] - jnp.arange(length)) <= reach
    seen = jnp.ones((1, 1, 1, length), bool) if mask is None else (mask != 0)[:, None, None]
    least = jnp.finfo(jnp.float32).min
    return {"full_attention": jnp.where(seen, 0, least), "sliding_attention": jnp.where(near & seen, 0, least)}


def kinds_of_layers(given: tuple[str, ...] | None, count: int) -> tuple[str, ...]:
    """The kind of each layer: every other one looks around itself only, the first one too."""
    return given or tuple(("sliding_attention", "full_attention")[i % 2] for i in range(count))
