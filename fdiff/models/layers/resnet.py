"""Residual blocks, and layers that halve or double the size of a picture."""


import flax.linen as nn
import jax
import jax.numpy as jnp

from fdiff.messages import show
from fdiff.models.layers.activations import Dropout, activation
from fdiff.models.layers.convolve import Padding, upsample
from fdiff.models.layers.linear import Conv, Linear
from fdiff.models.layers.norm import AdaGroupNorm, GroupNorm, SpatialNorm


class ResnetBlock2D(nn.Module):
    """norm, activation, convolution, twice, plus the input: (b, h, w, c) -> (b, h, w, out_channels).

    temb (b, d) enters between: "default" adds it, "scale_shift" scales and shifts by it after the second
    norm, "ada_group" and "spatial" do so in both norms (temb is a picture for "spatial"). Without temb there
    is no such layer. `up` doubles and `down` halves the size, by a FIR filter if kernel is "fir".
    `use_in_shortcut` forces the 1x1 convolution of the input that a change of channels asks for.
    """

    out_channels: int | None = None
    dropout: float = 0.0
    groups: int = 32
    groups_out: int | None = None
    eps: float = 1e-6
    non_linearity: str = "silu"
    skip_time_act: bool = False
    time_embedding_norm: str = "default"
    kernel: str | None = None
    output_scale_factor: float = 1.0
    use_in_shortcut: bool | None = None
    up: bool = False
    down: bool = False
    conv_shortcut_bias: bool = True
    conv_2d_out_channels: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, temb: jax.Array | None = None) -> jax.Array:
        channels = self.out_channels or x.shape[-1]
        last_channels = self.conv_2d_out_channels or channels
        act = activation(self.non_linearity)

        residual, x = x, act(self.norm("norm1", x, temb, self.groups))
        if self.up or self.down:
            residual, x = self.resize(residual), self.resize(x)
        x = Conv(channels, name="conv1")(x)

        groups = self.groups_out or self.groups
        if self.time_embedding_norm in ("ada_group", "spatial"):
            x = self.norm("norm2", x, temb, groups)
        elif self.time_embedding_norm == "scale_shift":
            if temb is None:
                raise ValueError('time_embedding_norm "scale_shift" needs a time embedding.')
            x = GroupNorm(groups, self.eps, name="norm2")(x)
            scale, shift = jnp.split(self.project(temb, 2 * channels), 2, axis=-1)
            x = x * (1 + scale) + shift
        elif self.time_embedding_norm == "default":
            if temb is not None:
                x += self.project(temb, channels)
            x = GroupNorm(groups, self.eps, name="norm2")(x)
        else:
            raise ValueError(
                f"time_embedding_norm {show(self.time_embedding_norm)} is unknown; "
                "choose default, scale_shift, ada_group or spatial."
            )
        x = Dropout(self.dropout, name="dropout")(act(x))
        x = Conv(last_channels, name="conv2")(x)

        shortcut = self.use_in_shortcut
        if shortcut if shortcut is not None else residual.shape[-1] != last_channels:
            convolution = Conv(last_channels, 1, padding=0, use_bias=self.conv_shortcut_bias, name="conv_shortcut")
            residual = convolution(residual)
        x += residual
        return x if self.output_scale_factor == 1 else x / self.output_scale_factor

    def norm(self, name: str, x: jax.Array, temb: jax.Array | None, groups: int) -> jax.Array:
        """Normalize, with temb where the option asks for it."""
        if self.time_embedding_norm not in ("ada_group", "spatial"):
            return GroupNorm(groups, self.eps, name=name)(x)
        if temb is None:
            raise ValueError(f"time_embedding_norm {show(self.time_embedding_norm)} needs a time embedding.")
        if self.time_embedding_norm == "ada_group":
            return AdaGroupNorm(groups, self.eps, name=name)(x, temb)
        return SpatialNorm(name=name)(x, temb)

    def project(self, temb: jax.Array, features: int) -> jax.Array:
        """(b, d) -> (b, 1, 1, features)."""
        temb = temb if self.skip_time_act else activation(self.non_linearity)(temb)
        return Linear(features, name="time_emb_proj")(temb)[:, None, None]

    def resize(self, x: jax.Array) -> jax.Array:
        """Double or halve the size."""
        if self.kernel == "fir":
            return fir_upsample(x) if self.up else fir_downsample(x)
        if self.kernel not in (None, "sde_vp"):
            raise ValueError(f"the resnet kernel {show(self.kernel)} is unknown; choose fir or sde_vp.")
        return upsample(x) if self.up else average(x)


class Downsample2D(nn.Module):
    """Convolution with stride 2: (b, h, w, c) -> (b, h / 2, w / 2, out_channels).

    Padding 0 means one row below and one column at the right, as in the checkpoints of DDPM and the VAEs.
    """

    out_channels: int
    padding: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        padding: Padding = self.padding or ((0, 1), (0, 1))
        return Conv(self.out_channels, 3, 2, padding, name="conv")(x)


class Upsample2D(nn.Module):
    """Nearest neighbours, then a convolution: (b, h, w, c) -> (b, 2 h, 2 w, out_channels), or to `size`."""

    out_channels: int

    @nn.compact
    def __call__(self, x: jax.Array, size: tuple[int, int] | None = None) -> jax.Array:
        doubled = size is None or size == (2 * x.shape[1], 2 * x.shape[2])
        return Conv(self.out_channels, doubled=doubled, name="conv")(x if doubled else upsample(x, size))


def average(x: jax.Array) -> jax.Array:
    """Mean of each 2 x 2 square: (b, h, w, c) -> (b, h / 2, w / 2, c). An odd last row is dropped."""
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    x = x[:, :height, :width]
    return 0.25 * (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2])


FIR = (0.125, 0.375, 0.375, 0.125)  # a binomial low-pass filter, (1, 3, 3, 1) / 8 (Zhang 2019)


def fir_upsample(x: jax.Array) -> jax.Array:
    """Insert zeros, then filter: (b, h, w, c) -> (b, 2 h, 2 w, c)."""
    for axis in (1, 2):
        pads = [(0, 0, 0)] * 4
        pads[axis] = (2, 2, 1)  # one zero between neighbours, two before and after
        x = 2 * fir(jax.lax.pad(x, jnp.zeros((), x.dtype), pads), axis, 1)
    return x


def fir_downsample(x: jax.Array) -> jax.Array:
    """Filter, then keep every second row and column: (b, h, w, c) -> (b, h / 2, w / 2, c)."""
    for axis in (1, 2):
        pads = [(0, 0)] * 4
        pads[axis] = (1, 1)
        x = fir(jnp.pad(x, pads), axis, 2)
    return x


def fir(x: jax.Array, axis: int, stride: int) -> jax.Array:
    """Weighted sum of four neighbours along an axis, at every position that has them, or every second."""
    end = x.shape[axis] - 3
    taps = [weight * jax.lax.slice_in_dim(x, i, i + end, stride, axis) for i, weight in enumerate(FIR)]
    return taps[0] + taps[1] + taps[2] + taps[3]
