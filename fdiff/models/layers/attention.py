"""Softmax attention: the function that every model calls, and the Hub's `Attention` module."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from fdiff.messages import show
from fdiff.models.layers.activations import Dropout
from fdiff.models.layers.attention_blocks import CPU, in_blocks
from fdiff.models.layers.fused_attention import fused
from fdiff.models.layers.linear import Linear
from fdiff.models.layers.norm import GroupNorm, LayerNorm, RMSNorm, SpatialNorm


@functools.partial(jax.jit, static_argnames="scale")  # so that layers of equal shapes are traced and lowered once
def attention(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None = None, scale: float | None = None
) -> jax.Array:
    """softmax(q k^T * scale + mask) v, for every head (Vaswani et al. 2017, eq. 1).

    q (b, n, heads, d), k and v (b, m, heads, d) -> (b, n, heads, d). `mask` is broadcast to (b, heads, n, m):
    booleans (True: look), or numbers added to the scores. A query that may look at nothing (False or -inf
    throughout) gets zeros, as in torch. `scale` is 1 / sqrt(d) if not given. The softmax is float32. No device holds
    all scores: a CPU computes a block at a time, whose scores stay in cache, and others use what is theirs (`fused`).
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    branches = functools.partial(in_blocks, CPU), fused
    blocks, other = (functools.partial(_looking, branch, scale=scale) for branch in branches)
    out: jax.Array = jax.lax.platform_dependent(q, k, v, mask, cpu=blocks, default=other)
    return out


def _looking(
    branch: Callable[..., jax.Array], q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, scale: float
) -> jax.Array:
    """What a branch gives, and zeros where a query may look at nothing.

    There a softmax is the mean of all values, or not a number: it looks at all, and what it gives is dropped.
    """
    if mask is None:
        return branch(q, k, v, None, scale)
    mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
    looks = (mask if mask.dtype == bool else mask > -jnp.inf).any(-1, keepdims=True)
    mask = mask | ~looks if mask.dtype == bool else jnp.where(looks, mask, 0)
    return jnp.where(looks.swapaxes(1, 2), branch(q, k, v, mask, scale), 0)


def split_heads(x: jax.Array, heads: int) -> jax.Array:
    """(b, n, heads * d) -> (b, n, heads, d)."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)


def merge_heads(x: jax.Array) -> jax.Array:
    """(b, n, heads, d) -> (b, n, heads * d)."""
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


def linear_attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: None = None) -> jax.Array:
    """relu(q) (relu(k)^T v) / (relu(q) relu(k)^T 1), for every head (Katharopoulos et al. 2020, eq. 5).

    Shapes are those of `attention`; time and memory grow with n alone. It is computed in float32, and has no mask.
    """
    wide, seen, values = nn.relu(q.astype(jnp.float32)), nn.relu(k.astype(jnp.float32)), v.astype(jnp.float32)
    kept = jnp.einsum("bmhd,bmhe->bhde", seen, values)
    total = jnp.einsum("bnhd,bhd->bnh", wide, seen.sum(1))[..., None]
    return (jnp.einsum("bnhd,bhde->bnhe", wide, kept) / (total + 1e-15)).astype(v.dtype)


class Attention(nn.Module):
    """Self- or cross-attention of x (b, n, c) or (b, h, w, c), with the Hub's names and options.

    out = to_out.0(attention(to_q(x), to_k(context), to_v(context))), the context being x where none is given.
    norm_num_groups normalizes x first; residual_connection adds the input; the sum is divided by
    rescale_output_factor. `mask` is that of `attention`, or of `attend` in its place. A picture `z` asks for a spatial
    norm by it.

    added_kv attends to the context through add_k_proj and add_v_proj and, unless only_cross_attention, to x
    as well; `mask` is then that of the context.

    Variables of a collection "attention", where `apply` is given them, change the layer for one run (see
    fdiff.models.edits): `identity`, booleans (b,): where true, everything attends to itself alone; `images`,
    tuples (keys, values, scale): more to attend to, (b, m, heads * d), the result times scale being added.
    """

    heads: int = 8
    dim_head: int = 64
    bias: bool = False
    out_bias: bool = True
    out_dim: int | None = None
    dropout: float = 0.0
    eps: float = 1e-5
    norm_num_groups: int | None = None
    cross_attention_norm: str | None = None
    cross_attention_norm_num_groups: int = 32
    qk_norm: str | None = None
    rescale_output_factor: float = 1.0
    residual_connection: bool = False
    added_kv: bool = False
    only_cross_attention: bool = False
    attend: Callable[..., jax.Array] = attention

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        context: jax.Array | None = None,
        mask: jax.Array | None = None,
        z: jax.Array | None = None,
    ) -> jax.Array:
        residual = x
        if z is not None:
            x = SpatialNorm(name="spatial_norm")(x, z)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        if self.norm_num_groups is not None:
            x = GroupNorm(self.norm_num_groups, self.eps, name="group_norm")(x)
        if context is None:
            context = x
        elif self.cross_attention_norm is not None:
            context = self.norm_context(context)

        q = self.project(x, "to_q")
        if self.added_kv:
            k, v = self.project(context, "add_k_proj", True), self.project(context, "add_v_proj", True)
            if not self.only_cross_attention:
                k = jnp.concatenate([k, self.project(x, "to_k")], axis=1)
                v = jnp.concatenate([v, self.project(x, "to_v")], axis=1)
                if mask is not None:
                    own = jnp.full((*mask.shape[:3], x.shape[1]), mask.dtype == bool, mask.dtype)
                    mask = jnp.concatenate([mask, own], axis=-1)
        else:
            k, v = self.project(context, "to_k"), self.project(context, "to_v")
        if self.qk_norm is not None:
            q, k = self.norm_heads(q, "norm_q"), self.norm_heads(k, "norm_k")
        x = merge_heads(self.edit(self.attend(q, k, v, mask), q, v))

        x = Linear(self.out_dim or residual.shape[-1], self.out_bias, name="to_out.0")(x)
        x = Dropout(self.dropout, name="to_out.1")(x)
        x = x.reshape(*residual.shape[:-1], x.shape[-1])
        if self.residual_connection:
            x += residual
        return x if self.rescale_output_factor == 1 else x / self.rescale_output_factor

    def project(self, x: jax.Array, name: str, bias: bool = False) -> jax.Array:
        """(b, n, c) -> (b, n, heads, d)."""
        return split_heads(Linear(self.heads * self.dim_head, self.bias or bias, name=name)(x), self.heads)

    def edit(self, x: jax.Array, q: jax.Array, v: jax.Array) -> jax.Array:
        """Change the result x (b, n, heads, d) as the collection "attention" says."""
        if self.has_variable("attention", "images"):
            images: tuple[tuple[jax.Array, jax.Array, jax.Array], ...] = self.get_variable("attention", "images")
            for keys, values, scale in images:
                keys, values = (split_heads(some.astype(q.dtype), self.heads) for some in (keys, values))
                x += (scale * attention(q, keys, values)).astype(x.dtype)
        if self.has_variable("attention", "identity"):
            x = jnp.where(self.get_variable("attention", "identity")[:, None, None, None], v, x)
        return x

    def norm_context(self, context: jax.Array) -> jax.Array:
        """Normalize what is attended to."""
        if self.cross_attention_norm == "layer_norm":
            return LayerNorm(name="norm_cross")(context)
        if self.cross_attention_norm == "group_norm":
            return GroupNorm(self.cross_attention_norm_num_groups, name="norm_cross")(context)
        raise ValueError(
            f"cross_attention_norm {show(self.cross_attention_norm)} is unknown; "
            "choose layer_norm or group_norm."
        )

    def norm_heads(self, x: jax.Array, name: str) -> jax.Array:
        """Normalize queries or keys, each head by itself but where it is said to be across them."""
        if self.qk_norm == "layer_norm":
            return LayerNorm(self.eps, name=name)(x)
        if self.qk_norm == "rms_norm":
            return RMSNorm(self.eps, name=name)(x)
        if self.qk_norm == "rms_norm_across_heads":
            return split_heads(RMSNorm(self.eps, name=name)(merge_heads(x)), self.heads)
        known = "layer_norm, rms_norm or rms_norm_across_heads"
        raise ValueError(f"qk_norm {show(self.qk_norm)} is unknown; choose {known}.")
