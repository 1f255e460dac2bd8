"""Linear maps: matrices, convolutions and tables. Inputs are cast to the dtype of the parameters.

A collection "lora" beside the parameters adds to them while a model runs: what lies below a layer as "down" and "up"
is a product of low rank, and what has the name of a parameter is a difference of it, in every layer (`parameter`).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from convert.quantized import Quantized, Streamed
from fdiff.models.layers.axes import sharded
from fdiff.models.layers.convolve import Padding, convolve, upsample_and_convolve
from fdiff.models.layers.parameter import kept, parameter
from fdiff.models.layers.product import product

# What torch draws for a new layer: uniform with a standard deviation of 1 / sqrt(3 fan_in).
uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Linear(nn.Module):
    """x @ kernel + bias: (..., in) -> (..., features), in float32 where `wide`, whatever the parameters are.

    Variables of a collection "lora", where `apply` is given them, add x @ down @ up (Hu et al. 2022).
    """

    features: int
    use_bias: bool = True
    wide: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = kept(self, "kernel", uniform, (x.shape[-1], self.features))
        x = x.astype(kernel.dtype)
        y = product(x, kernel, jnp.float32 if self.wide else None)
        if self.use_bias:
            y += parameter(self, "bias", nn.initializers.zeros, (self.features,))
        if self.has_variable("lora", "down"):
            down: jax.Array = self.get_variable("lora", "down")
            up: jax.Array = self.get_variable("lora", "up")
            y += jnp.dot(jnp.dot(x, down.astype(x.dtype)), up.astype(x.dtype))
        return y


class Conv(nn.Module):
    """Two-dimensional convolution: (b, h, w, in) -> (b, h', w', features).

    `padding` is a number of zeros for every side, or ((top, bottom), (left, right)). `doubled` doubles the
    picture first, by nearest neighbours (3x3 only). Variables of a collection "lora" add a convolution with
    kernel `down`, then one with the 1x1 kernel `up`.
    """

    features: int
    kernel_size: int | tuple[int, int] = 3
    stride: int = 1
    padding: Padding = 1
    use_bias: bool = True
    groups: int = 1
    doubled: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = self.kernel_size if isinstance(self.kernel_size, tuple) else (self.kernel_size,) * 2
        kernel = parameter(self, "kernel", uniform, (*size, x.shape[-1] // self.groups, self.features))
        x = x.astype(kernel.dtype)
        y = self.convolve(x, kernel)
        if self.use_bias:
            y += parameter(self, "bias", nn.initializers.zeros, (self.features,))
        if self.has_variable("lora", "down"):
            down: jax.Array = self.get_variable("lora", "down")
            up: jax.Array = self.get_variable("lora", "up")
            y += convolve(self.convolve(x, down.astype(x.dtype)), up.astype(x.dtype))
        return y

    def convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """Convolve as the fields say."""
        if self.doubled:
            return upsample_and_convolve(x, kernel)
        return convolve(x, kernel, self.stride, self.padding, self.groups)


class Embed(nn.Module):
    """A row of a table for each integer: (...) -> (..., features)."""

    num_embeddings: int
    features: int

    @nn.compact
    def __call__(self, indices: jax.Array) -> jax.Array:
        table = kept(self, "embedding", nn.initializers.normal(1.0), (self.num_embeddings, self.features))
        if isinstance(table, Streamed):
            table = table.fetched(after=indices)
        if isinstance(table, Quantized):
            return table.take(indices)
        if sharded(indices):  # JAX asks how the result is to be
            return table.at[indices].get(mode="fill", out_sharding=jax.typeof(indices).sharding)
        return jnp.take(table, indices, axis=0)
