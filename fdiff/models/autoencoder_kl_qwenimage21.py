"""AutoencoderKLQwenImage21: pictures with transparency to the latents of Qwen-Image-2.1, and back."""

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.autoencoder_kl_wan import Multiple, StandardizedAutoencoder
from fdiff.models.fields import Channels, Count, Dropout, Factor, Layers, Shift, some
from fdiff.models.layers.checks import require
from fdiff.models.layers.linear import Conv
from fdiff.models.layers.vae import DiagonalGaussian, diagonal_gaussian
from fdiff.models.layers.wan_vae import Norm, seen_in_frames

MEAN = (
    0.5126, 0.7721, -0.0631, 1.3506, -0.7855, -2.1025, -0.3458, 1.3722, 1.8873, -1.7177, -0.6510, 0.2732, 0.7562,
    -0.6163, -1.0277, 3.8363, 2.0210, 0.0472, 0.9320, 2.0087, 2.4954, -0.1391, -1.4249, 1.8464, -0.5236, 1.2826, 3.7046,
    -1.3035, 2.7286, -1.4518, -1.9036, -1.9955, -0.0342, -1.0265, -0.7636, 3.0555, 0.0746, -3.0751, -0.1076, 1.7376,
    -1.0914, -1.9435, -0.2784, -1.3680, 0.4809, -0.4433, 0.3764, 0.5729, -2.0595, 1.0960, -1.3260, -2.0211, -5.0179,
    0.5275, 4.0162, 1.8505, 0.3026, 1.9373, 1.4937, 0.2632, 0.5547, -1.7121, -0.1562, 0.0304,
)  # fmt: skip
STD = (
    3.2001, 3.2936, 3.4321, 3.0091, 3.1061, 4.0379, 4.0705, 3.7910, 3.0785, 3.6500, 3.9308, 3.0904, 2.8778, 3.7675,
    3.7320, 5.0756, 3.2864, 4.0397, 3.1317, 4.0443, 2.9249, 3.9454, 3.0988, 4.2489, 3.4896, 3.8513, 3.9323, 3.4719,
    3.7498, 4.2830, 3.5694, 4.2467, 3.9037, 3.2947, 5.0770, 3.5075, 3.2700, 3.4767, 2.8063, 5.1125, 3.5327, 4.7833,
    3.1286, 4.1819, 3.8527, 3.8312, 3.5605, 4.3875, 3.9624, 4.0168, 3.5643, 4.0550, 5.5614, 4.2963, 4.4080, 3.4959,
    3.8747, 3.7608, 3.5735, 3.1490, 3.7662, 3.6746, 3.4563, 3.8161,
)  # fmt: skip


class AutoencoderKLQwenImage21(StandardizedAutoencoder):
    """An autoencoder whose blocks have shortcuts past their change of size (Qwen Team 2026).

    encode: pictures (b, h, w, in_channels) in [-1, 1], the fourth channel their transparency -> DiagonalGaussian of
    latents (b, h / f, w / f, z_dim); decode: the inverse, in [-1, 1]. f is 2^(levels - 1). Latents are `scale`d before
    a denoiser sees them and `unscale`d before `decode`.

        latents = vae.apply({"params": params}, picture, method="encode").mode()

    It is one for videos, of which pictures need but the layers in space.
    """

    base_dim: Count = 96
    decoder_base_dim: Count | None = 144
    z_dim: Channels = 64
    dim_mult: Annotated[tuple[Multiple, ...], some(8)] = (1, 2, 4, 8, 8)
    num_res_blocks: Layers = 2
    attn_scales: tuple[Factor, ...] = ()
    temperal_downsample: Annotated[tuple[bool, ...], some(8)] = (False, True, True, True)
    dropout: Dropout = 0.0  # of its training
    latents_mean: tuple[Shift, ...] = MEAN
    latents_std: tuple[Factor, ...] = STD
    is_residual: bool = True
    in_channels: Channels = 4
    out_channels: Channels = 4
    patch_size: Count | None = None
    scale_factor_temporal: Count | None = 8
    scale_factor_spatial: Count | None = 16

    def setup(self) -> None:
        """Make the two halves."""
        self.check_options()
        widths = [self.base_dim * factor for factor in self.dim_mult]
        self.encoder = Encoder(
            2 * self.z_dim, self.base_dim, tuple(widths), self.num_res_blocks, self.temperal_downsample
        )
        self.quant_conv = Conv(2 * self.z_dim, 1, padding=0)
        self.post_quant_conv = Conv(self.z_dim, 1, padding=0)
        widths = [(self.decoder_base_dim or self.base_dim) * factor for factor in self.dim_mult]
        doubled = self.temperal_downsample[::-1]
        self.decoder = Decoder(self.out_channels, tuple(widths[::-1]), self.num_res_blocks + 1, doubled)

    def check_options(self) -> None:
        """Refuse options that no such network has, or that do not fit together."""
        plain = self.is_residual and not self.attn_scales and self.patch_size is None
        require(plain, "is_residual must be true, attn_scales [] and patch_size null: there is no other such network.")
        super().check_options()
        factors = [8 if in_time else 4 for in_time in self.temperal_downsample]
        down = zip((1, *self.dim_mult), self.dim_mult, (*factors, 1), strict=False)
        up = zip(self.dim_mult[::-1], self.dim_mult[-1:] + self.dim_mult[:0:-1], factors[::-1], strict=False)
        for number, divisor, factor in (*down, *up):
            good = factor * number % divisor == 0
            require(good, f"dim_mult {self.dim_mult}: {divisor} must divide {factor} times {number} for shortcuts.")

    def encode(self, sample: jax.Array) -> DiagonalGaussian:
        """The distribution of the latents of pictures."""
        factor = 2 ** (len(self.dim_mult) - 1)
        fits = sample.ndim == 4 and sample.shape[-1] == self.in_channels
        if not fits or sample.shape[1] % factor or sample.shape[2] % factor:
            raise ValueError(f"Pictures must be (batch, height, width, {self.in_channels}), height and width multiples "
                             f"of {factor}; they are {sample.shape}.")
        return diagonal_gaussian(self.quant_conv(self.encoder(sample)))

    def decode(self, latents: jax.Array) -> jax.Array:
        """The pictures of latents."""
        if latents.ndim != 4 or latents.shape[-1] != self.z_dim:
            raise ValueError(f"Latents must be (batch, height, width, {self.z_dim}); they are {latents.shape}.")
        return jnp.clip(self.decoder(self.post_quant_conv(latents)), -1, 1)

    def example_inputs(self) -> tuple[Any, ...]:
        """One picture of one latent."""
        size = 2 ** (len(self.dim_mult) - 1)
        return (np.zeros((1, size, size, self.in_channels), np.float32),)


class Encoder(nn.Module):
    """A picture to half its size for every level but the last: (b, h, w, c) -> (b, h / f, w / f, out)."""

    out_channels: int
    first: int
    widths: tuple[int, ...]
    layers: int
    in_time: tuple[bool, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Conv(self.first, name="conv_in")(x)
        for i, width in enumerate(self.widths):
            last = i == len(self.widths) - 1
            y = x
            for j in range(self.layers):
                y = ResidualBlock(width, name=f"down_blocks.{i}.resnets.{j}")(y)
            if not last:
                halve = Conv(width, stride=2, padding=((0, 1), (0, 1)), name=f"down_blocks.{i}.downsampler.resample.1")
                y = halve(y)
                if self.in_time[i]:
                    unused(Conv(width, 1, padding=0, name=f"down_blocks.{i}.downsampler.time_conv"), y)
            x = y + averaged(x, width, 1 if last else 2, not last and self.in_time[i])
        x = nn.silu(Norm(name="norm_out")(MiddleBlock(name="mid_block")(x)))
        return Conv(self.out_channels, name="conv_out")(x)


class Decoder(nn.Module):
    """A picture to twice its size for every level but the last: (b, h, w, c) -> (b, h f, w f, out)."""

    out_channels: int
    widths: tuple[int, ...]
    layers: int
    in_time: tuple[bool, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = MiddleBlock(name="mid_block")(Conv(self.widths[0], name="conv_in")(x))
        for i, width in enumerate(self.widths):
            y = x
            for j in range(self.layers):
                y = ResidualBlock(width, name=f"up_blocks.{i}.resnets.{j}")(y)
            if i < len(self.widths) - 1:
                if self.in_time[i]:
                    unused(Conv(2 * width, 1, padding=0, name=f"up_blocks.{i}.upsampler.time_conv"), y)
                y = Conv(width, doubled=True, name=f"up_blocks.{i}.upsampler.resample.1")(y)
                y += repeated(x, width, self.in_time[i])
            x = y
        return Conv(self.out_channels, name="conv_out")(nn.silu(Norm(name="norm_out")(x)))


class MiddleBlock(nn.Module):
    """Residual blocks around attention of all places of a picture to each other: (b, h, w, c)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = ResidualBlock(x.shape[-1], name="resnets.0")(x)
        return ResidualBlock(x.shape[-1], name="resnets.1")(x + seen_in_frames(x))


class ResidualBlock(nn.Module):
    """Two convolutions, each behind a norm and an activation, added to the input: (b, h, w, c) -> (b, h, w, width)."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = Conv(self.width, name="conv1")(nn.silu(Norm(name="norm1")(x)))
        y = Conv(self.width, name="conv2")(nn.silu(Norm(name="norm2")(y)))
        return y + (x if x.shape[-1] == self.width else Conv(self.width, 1, padding=0, name="conv_shortcut")(x))


def unused(layer: Conv, x: jax.Array) -> None:
    """Give a layer in time, which a picture does not pass, its parameters, since checkpoints have them."""
    if layer.is_initializing():
        layer(x)


def averaged(x: jax.Array, width: int, factor: int, in_time: bool) -> jax.Array:
    """(b, h, w, c) -> (b, h / factor, w / factor, width): means of neighbours in channels, time, rows and columns.

    Of two points in time the first is empty, since a picture is the last of a video.
    """
    batch, height, columns, channels = x.shape
    x = x.reshape(batch, height // factor, factor, columns // factor, factor, channels)
    x = x.transpose(0, 1, 3, 5, 2, 4)  # channels, then rows and columns of a square
    if in_time:
        x = jnp.stack([jnp.zeros_like(x), x], axis=4)
    return x.reshape(batch, height // factor, columns // factor, width, -1).mean(-1)


def repeated(x: jax.Array, width: int, in_time: bool) -> jax.Array:
    """(b, h, w, c) -> (b, 2 h, 2 w, width): the inverse, each number as often as it takes; the last point in time."""
    batch, height, columns, channels = x.shape
    times = 2 if in_time else 1
    x = jnp.repeat(x, 4 * times * width // channels, axis=-1)
    x = x.reshape(batch, height, columns, width, times, 2, 2)[..., -1, :, :]
    return x.transpose(0, 1, 4, 2, 5, 3).reshape(batch, 2 * height, 2 * columns, width)
