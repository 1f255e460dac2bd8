"""Convolutions of sequences (b, n, c): plain, transposed, and with weights whose length is a number of its own."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from fdiff.models.layers.linear import uniform
from fdiff.models.layers.parameter import parameter


def convolve(
    x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1
) -> jax.Array:
    """Convolution of x (b, n, in) with kernel (k, in / groups, out), `padding` zeros at both ends."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride,),
        ((padding, padding),),
        rhs_dilation=(dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=groups,
    )


def convolve_transposed(
    x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int = 0, output_padding: int = 0
) -> jax.Array:
    """The transpose of a convolution: x (b, n, in), kernel (k, out, in) -> (b, (n - 1) stride + k - 2 padding, out).

    Each number of x adds the kernel, times itself, to the result at its place: `stride` places of the result at a time
    are what a convolution of so many times the features makes, and no zeros are multiplied. `output_padding` makes the
    result longer at its end.
    """
    size, features, channels = kernel.shape
    count = -(-size // stride)  # how many results of neighbours meet
    kernel = jnp.pad(kernel, ((0, count * stride - size), (0, 0), (0, 0)))
    batch, length = x.shape[:2]
    if batch * length <= channels:  # turning the kernel, which is larger, would take longer than the product
        parts = jnp.einsum("koi,bni->kobn", kernel, x).transpose(2, 3, 0, 1)
        parts = parts.reshape(batch, length, count, stride * features)
        pads = [((0, 0), (j, count - 1 - j), (0, 0)) for j in range(count)]
        summed = jnp.asarray(sum(jnp.pad(parts[:, :, j], pads[j]) for j in range(count)))
    else:
        turned = kernel.reshape(count, stride * features, channels)[::-1].swapaxes(1, 2)
        summed = convolve(x, turned, padding=count - 1)
    summed = summed.reshape(batch, (length + count - 1) * stride, features)
    end = (length - 1) * stride + size - padding + output_padding
    missing = max(0, end - summed.shape[1])
    return jnp.pad(summed, ((0, 0), (0, missing), (0, 0)))[:, padding:end]


class Conv1d(nn.Module):
    """Convolution: (b, n, in) -> (b, n', features)."""

    features: int
    kernel_size: int = 3
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = parameter(self, "kernel", uniform, (self.kernel_size, x.shape[-1] // self.groups, self.features))
        y = convolve(x.astype(kernel.dtype), kernel, self.stride, self.padding, self.dilation, self.groups)
        return y + parameter(self, "bias", nn.initializers.zeros, (self.features,)) if self.use_bias else y


class ConvTranspose1d(nn.Module):
    """Transposed convolution: (b, n, in) -> (b, (n - 1) stride + kernel_size - 2 padding, features)."""

    features: int
    kernel_size: int
    stride: int
    padding: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = parameter(self, "kernel", uniform, (self.kernel_size, self.features, x.shape[-1]))
        y = convolve_transposed(x.astype(kernel.dtype), kernel, self.stride, self.padding)
        return y + parameter(self, "bias", nn.initializers.zeros, (self.features,))
