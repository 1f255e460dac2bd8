"""The two halves of Wan's autoencoder (Wan Team 2025), which Qwen-Image has too: causal in time, alike in space.

Arrays are (b, frames, h, w, c). The first frame stands by itself, so that a picture is a video of one frame; what comes
out of a frame depends on none behind it. With a collection "cache", mutable, a video may come part by part, the first
part being the first frame: layers find there what they have seen last.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from fdiff.models.layers.attention import attention
from fdiff.models.layers.convolve import convolve
from fdiff.models.layers.linear import Conv, uniform
from fdiff.models.layers.parameter import parameter


class Encoder(nn.Module):
    """A video to half its size at every level but the last, and to half its frames where `in_time` says so."""

    out_channels: int
    first: int
    widths: tuple[int, ...]
    layers: int
    in_time: tuple[bool, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x, number = CausalConv(self.first, name="conv_in")(x), 0
        for i, width in enumerate(self.widths):
            for _ in range(self.layers):
                x, number = ResidualBlock(width, name=f"down_blocks.{number}")(x), number + 1
            if i < len(self.in_time):
                x, number = Halved(self.in_time[i], name=f"down_blocks.{number}")(x), number + 1
        x = nn.silu(Norm(name="norm_out")(MiddleBlock(name="mid_block")(x)))
        return CausalConv(self.out_channels, name="conv_out")(x)


class Decoder(nn.Module):
    """A video to twice its size at every level but the last, and to twice its frames where `in_time` says so."""

    out_channels: int
    widths: tuple[int, ...]
    layers: int
    in_time: tuple[bool, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = MiddleBlock(name="mid_block")(CausalConv(self.widths[0], name="conv_in")(x))
        for i, width in enumerate(self.widths):
            for j in range(self.layers):
                x = ResidualBlock(width, name=f"up_blocks.{i}.resnets.{j}")(x)
            if i < len(self.in_time):
                x = Doubled(self.in_time[i], name=f"up_blocks.{i}.upsamplers.0")(x)
        return CausalConv(self.out_channels, name="conv_out")(nn.silu(Norm(name="norm_out")(x)))


class MiddleBlock(nn.Module):
    """Residual blocks around attention of all places of a frame to each other."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = ResidualBlock(x.shape[-1], name="resnets.0")(x)
        x += seen_in_frames(x.reshape(-1, *x.shape[2:])).reshape(x.shape)
        return ResidualBlock(x.shape[-1], name="resnets.1")(x)


def seen_in_frames(x: jax.Array) -> jax.Array:
    """What all places of a frame see of each other, (b, h, w, c), by layers of the module that calls this."""
    batch, height, width, channels = x.shape
    qkv = Conv(3 * channels, 1, padding=0, name="attentions.0.to_qkv")(Norm(axes=2, name="attentions.0.norm")(x))
    q, k, v = jnp.split(qkv.reshape(batch, height * width, 1, 3 * channels), 3, axis=-1)
    return Conv(channels, 1, padding=0, name="attentions.0.proj")(attention(q, k, v).reshape(x.shape))


class ResidualBlock(nn.Module):
    """Two convolutions, each behind a norm and an activation, added to the input."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = CausalConv(self.width, name="conv1")(nn.silu(Norm(name="norm1")(x)))
        y = CausalConv(self.width, name="conv2")(nn.silu(Norm(name="norm2")(y)))
        return y + (x if x.shape[-1] == self.width else CausalConv(self.width, (1, 1), name="conv_shortcut")(x))


class Halved(nn.Module):
    """Half the size, and behind the first frame half the frames."""

    in_time: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = by_frame(Conv(x.shape[-1], stride=2, padding=((0, 1), (0, 1)), name="resample.1"), x)
        return HalvedFrames(name="time_conv")(x) if self.in_time else x


class HalvedFrames(nn.Module):
    """The first frame, and then one of every two frames and the one before them."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width, begun = x.shape[-1], self.has_variable("cache", "past")
        kernel = parameter(self, "kernel", uniform, (3, 1, 1, width, width))
        bias = parameter(self, "bias", nn.initializers.zeros, (width,))
        if begun:
            x = jnp.concatenate([self.get_variable("cache", "past"), x], axis=1)
        keep(self, x[:, -1:])
        if x.shape[1] < 3:
            return x
        three = x[:, :-2:2], x[:, 1:-1:2], x[:, 2::2]
        y = bias + jnp.stack([jnp.dot(one, taps[0, 0]) for one, taps in zip(three, kernel, strict=True)]).sum(0)
        return y if begun else jnp.concatenate([x[:, :1], y], axis=1)


class Doubled(nn.Module):
    """Twice the size with half the channels, and behind the first frame twice the frames."""

    in_time: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        if self.in_time:
            lone = 0 if self.has_variable("cache", "past") else 1
            keep(self, x[:, :0])
            rest = x if self.is_initializing() else x[:, lone:]
            pairs = CausalConv(2 * width, (3, 1), name="time_conv")(rest)
            if not self.is_initializing():
                pairs = jnp.stack(jnp.split(pairs, 2, axis=-1), axis=2).reshape(len(x), -1, *x.shape[2:])
                x = jnp.concatenate([x[:, :lone], pairs], axis=1)
        return by_frame(Conv(width // 2, doubled=True, name="resample.1"), x)


class CausalConv(nn.Module):
    """A convolution that sees the frames before, zeros before the first: kernel_size in time, and in rows and columns.
    """

    features: int
    kernel_size: tuple[int, int] = (3, 3)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        time, size = self.kernel_size
        kernel = parameter(self, "kernel", uniform, (time, size, size, x.shape[-1], self.features))
        bias = parameter(self, "bias", nn.initializers.zeros, (self.features,))
        x, frames, begun = x.astype(kernel.dtype), x.shape[1], self.has_variable("cache", "past")
        if time > 1:
            past = jnp.zeros_like(x, shape=(len(x), time - 1, *x.shape[2:]))
            whole = jnp.concatenate([self.get_variable("cache", "past") if begun else past, x], axis=1)
            keep(self, whole[:, frames:])
        if frames == 0:
            return jnp.zeros_like(x, shape=(*x.shape[:-1], self.features))
        if time == 1 or (frames == 1 and not begun):  # all before is zero
            return by_frame(lambda one: convolve(one, kernel[-1], padding=size // 2), x) + bias
        pads = ((0, 0), (size // 2,) * 2, (size // 2,) * 2)
        numbers = ("NDHWC", "DHWIO", "NDHWC")
        y: jax.Array = jax.lax.conv_general_dilated(whole, kernel, (1, 1, 1), pads, dimension_numbers=numbers)
        return y + bias


class Norm(nn.Module):
    """sqrt(c) x / |x| over the channels, by a learned scale, which torch keeps with axes for space and time."""

    axes: int = 3

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        gamma = parameter(self, "gamma", nn.initializers.ones, (channels, *(1,) * self.axes)).reshape(-1)
        wide = x.astype(jnp.float32)
        length = jnp.sqrt(jnp.square(wide).sum(-1, keepdims=True))
        return (wide / jnp.maximum(length, 1e-12)).astype(x.dtype) * channels**0.5 * gamma


def keep(module: nn.Module, past: jax.Array) -> None:
    """What a layer is to find when the next part of a video comes, where there may be one."""
    if module.is_mutable_collection("cache") and not module.is_initializing():
        module.put_variable("cache", "past", past)


def by_frame(layer: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """The layer, of pictures, on each frame: (b, frames, h, w, c) -> (b, frames, h', w', c')."""
    y = layer(x.reshape(-1, *x.shape[2:]))
    return y.reshape(*x.shape[:2], *y.shape[1:])
