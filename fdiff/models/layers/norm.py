"""Normalization. Statistics are float32 whatever the input; the result has the input's dtype."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from fdiff.models.layers.linear import Conv, Linear
from fdiff.models.layers.parameter import parameter


@partial(jax.jit, static_argnames=("groups", "eps"))  # so that layers of equal shapes are traced and lowered once
def normalize_groups(x: jax.Array, groups: int, eps: float, scale: jax.Array, shift: jax.Array) -> jax.Array:
    """Group normalization (Wu and He 2018): (x - mean) / sqrt(variance + eps) * scale + shift.

    x (b, ..., c): mean and variance are over all positions and the channels of a group; scale and shift are
    (c,) or (b, c).
    """
    batch, channels = x.shape[0], x.shape[-1]
    if not groups or channels % groups:
        raise ValueError(f"{channels} channels cannot be normalized in {groups} groups; choose a divisor.")
    wide = x.astype(jnp.float32).reshape(batch, -1, channels)

    def mean_of(x: jax.Array) -> jax.Array:  # (b, n, c) -> (b, 1, c); each channel by itself first is fastest
        means = x.mean(1).reshape(batch, groups, -1).mean(-1)
        return jnp.repeat(means, channels // groups, axis=1)[:, None]

    mean = mean_of(wide)
    variance = mean_of(jnp.square(wide - mean))
    # One multiplication and one addition an element.
    slope = scale.astype(jnp.float32).reshape(-1, 1, channels) * jax.lax.rsqrt(variance + eps)
    offset = shift.astype(jnp.float32).reshape(-1, 1, channels) - mean * slope
    return (wide * slope + offset).reshape(x.shape).astype(x.dtype)


class GroupNorm(nn.Module):
    """Group normalization with a learned scale and bias: (b, ..., c) -> (b, ..., c)."""

    num_groups: int
    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = parameter(self, "scale", nn.initializers.ones, (x.shape[-1],))
        bias = parameter(self, "bias", nn.initializers.zeros, (x.shape[-1],))
        return normalize_groups(x, self.num_groups, self.eps, scale, bias)


class AdaGroupNorm(nn.Module):
    """Group normalization whose scale and shift are linear in an embedding (b, d)."""

    num_groups: int
    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, embedding: jax.Array) -> jax.Array:
        scale, shift = jnp.split(Linear(2 * x.shape[-1], name="linear")(embedding), 2, axis=-1)
        return normalize_groups(x, self.num_groups, self.eps, 1 + scale.astype(jnp.float32), shift)


class SpatialNorm(nn.Module):
    """Group normalization whose scale and shift are linear in a picture z (Zheng et al. 2022)."""

    @nn.compact
    def __call__(self, x: jax.Array, z: jax.Array) -> jax.Array:
        z = jax.image.resize(z, (*z.shape[:1], *x.shape[1:3], z.shape[-1]), "nearest")
        scale = Conv(x.shape[-1], 1, padding=0, name="conv_y")(z)
        shift = Conv(x.shape[-1], 1, padding=0, name="conv_b")(z)
        return GroupNorm(32, 1e-6, name="norm_layer")(x) * scale + shift


def standardized(x: jax.Array, eps: float) -> jax.Array:
    """x with mean 0 and variance 1 over the last axis, in float32."""
    wide = x.astype(jnp.float32)
    wide -= wide.mean(-1, keepdims=True)
    return wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + eps)


class LayerNorm(nn.Module):
    """Layer normalization (Ba et al. 2016) over the last axis, with a scale and a bias where `affine`."""

    eps: float = 1e-5
    affine: bool = True
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = standardized(x, self.eps)
        if self.affine:
            y *= parameter(self, "scale", nn.initializers.ones, (x.shape[-1],)).astype(jnp.float32)
            if self.use_bias:
                y += parameter(self, "bias", nn.initializers.zeros, (x.shape[-1],)).astype(jnp.float32)
        return y.astype(x.dtype)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) over the last axis, with a scale where `affine` (Zhang and Sennrich 2019).

    `offset` is what a checkpoint leaves out of the scale: 1 in Gemma's. With `use_bias` a bias is added.
    """

    eps: float = 1e-6
    affine: bool = True
    offset: float = 0.0
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        wide = x.astype(jnp.float32)
        y = wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + self.eps)
        if self.affine:
            init = nn.initializers.constant(1 - self.offset)
            y *= self.offset + parameter(self, "scale", init, (x.shape[-1],)).astype(jnp.float32)
        if self.use_bias:
            y += parameter(self, "bias", nn.initializers.zeros, (x.shape[-1],)).astype(jnp.float32)
        return y.astype(x.dtype)


class BatchNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps) * scale + bias (Ioffe and Szegedy 2015): (..., c) -> (..., c).

    Mean and variance are those of the training, as the checkpoint has them.
    """

    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def numbers(name: str, init: nn.initializers.Initializer) -> jax.Array:
            return parameter(self, name, init, (x.shape[-1],)).astype(jnp.float32)

        zeros, ones = nn.initializers.zeros, nn.initializers.ones
        y = (x.astype(jnp.float32) - numbers("running_mean", zeros)) * numbers("scale", ones)
        y = y * jax.lax.rsqrt(numbers("running_var", ones) + self.eps) + numbers("bias", zeros)
        return y.astype(x.dtype)
