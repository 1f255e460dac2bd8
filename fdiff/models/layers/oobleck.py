"""The two halves of AutoencoderOobleck: convolutions of known length, and waves between them."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.layers.conv1d import convolve, convolve_transposed
from fdiff.models.layers.parameter import parameter

DILATIONS = (1, 3, 9)  # of the residual units of a block
# pi in two parts, the first with so few bits that whole multiples of it are exact in float32 (Cody and Waite 1980).
PI_HIGH = np.float32(3.140625)
PI_LOW = np.float32(math.pi - 3.140625)
SINE = tuple((-1) ** i / math.factorial(2 * i + 1) for i in range(6))  # of Taylor's series: 6e-8 off at pi / 2


def squared_sine(x: jax.Array) -> jax.Array:
    """sin(x)^2, float32: of the rest of x by pi, which a CPU computes several numbers of at a time."""
    wide = x.astype(jnp.float32)
    turns = jnp.round(wide * np.float32(1 / math.pi))
    rest = (wide - turns * PI_HIGH) - turns * PI_LOW
    square = rest * rest
    total = jnp.full_like(square, np.float32(SINE[-1]))
    for weight in SINE[-2::-1]:
        total = total * square + np.float32(weight)
    return square * total * total


class Snake1d(nn.Module):
    """x + sin(alpha x)^2 / beta, the checkpoint holding the logarithms (Ziyin et al. 2020): (b, n, c)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (1, x.shape[-1], 1)
        alpha, beta = (parameter(self, name, nn.initializers.zeros, shape) for name in ("alpha", "beta"))
        alpha, beta = (jnp.exp(one.astype(jnp.float32)).reshape(-1) for one in (alpha, beta))
        return (x + squared_sine(alpha * x) / (beta + 1e-9)).astype(x.dtype)


class NormedConv1d(nn.Module):
    """A convolution whose kernel is g v / |v|, g a number for each feature (Salimans and Kingma 2016).

    Where `transposed`, it is a transposed one, and g a number for each channel of x.
    """

    features: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    use_bias: bool = True
    transposed: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        second, first = (self.features, x.shape[-1]) if self.transposed else (x.shape[-1], self.features)
        kernel = parameter(self, "kernel_v", nn.initializers.normal(1.0), (self.kernel_size, second, first))
        length = parameter(self, "weight_g", nn.initializers.ones, (first, 1, 1))
        norm = jnp.sqrt(jnp.square(kernel.astype(jnp.float32)).sum((0, 1)))
        ratio = (length.astype(jnp.float32).reshape(-1) / norm).astype(kernel.dtype)
        x = x.astype(kernel.dtype)
        # The lengths scale what goes in, or comes out, which are fewer numbers than the kernel has.
        if self.transposed:
            y = convolve_transposed(ratio * x, kernel, self.stride, self.padding)
        else:
            y = ratio * convolve(x, kernel, self.stride, self.padding, self.dilation)
        return y + parameter(self, "bias", nn.initializers.zeros, (self.features,)) if self.use_bias else y


class ResidualUnit(nn.Module):
    """Two waves and convolutions, the first of them wide and dilated, plus the input: (b, n, c)."""

    dilation: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        wide = NormedConv1d(channels, 7, padding=3 * self.dilation, dilation=self.dilation, name="conv1")
        y = wide(Snake1d(name="snake1")(x))
        return x + NormedConv1d(channels, 1, name="conv2")(Snake1d(name="snake2")(y))


def units(x: jax.Array, name: str) -> jax.Array:
    """The residual units of a block."""
    for i, dilation in enumerate(DILATIONS):
        x = ResidualUnit(dilation, name=f"{name}.res_unit{i + 1}")(x)
    return x


class OobleckEncoder(nn.Module):
    """Samples to features, as many fewer as the product of the ratios: (b, n, c) -> (b, n / product, width)."""

    width: int
    ratios: tuple[int, ...]
    multiples: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = NormedConv1d(self.width, 7, padding=3, name="conv1")(x)
        for i, (ratio, multiple) in enumerate(zip(self.ratios, self.multiples, strict=True)):
            name = f"block.{i}"
            x = Snake1d(name=f"{name}.snake1")(units(x, name))
            padding = -(-ratio // 2)
            x = NormedConv1d(self.width * multiple, 2 * ratio, ratio, padding, name=f"{name}.conv1")(x)
        return NormedConv1d(self.width, 3, padding=1, name="conv2")(Snake1d(name="snake1")(x))


class OobleckDecoder(nn.Module):
    """Features to samples: (b, n, c) -> (b, n product, channels)."""

    channels: int
    width: int
    ratios: tuple[int, ...]
    multiples: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = NormedConv1d(self.width * self.multiples[-1], 7, padding=3, name="conv1")(x)
        widths = (*self.multiples[-2::-1], 1)
        for i, (ratio, multiple) in enumerate(zip(self.ratios[::-1], widths, strict=True)):
            name, padding, features = f"block.{i}", -(-ratio // 2), self.width * multiple
            grow = NormedConv1d(features, 2 * ratio, ratio, padding, transposed=True, name=f"{name}.conv_t1")
            x = units(grow(Snake1d(name=f"{name}.snake1")(x)), name)
        return NormedConv1d(self.channels, 7, padding=3, use_bias=False, name="conv2")(Snake1d(name="snake1")(x))
