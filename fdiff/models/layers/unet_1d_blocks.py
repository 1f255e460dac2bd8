"""The blocks of UNet1DModel: those of Dance Diffusion, and those that plan motions (Janner et al. 2022)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from fdiff.models.layers.activations import activation, gelu, mish
from fdiff.models.layers.attention import attention, merge_heads, split_heads
from fdiff.models.layers.conv1d import Conv1d, ConvTranspose1d
from fdiff.models.layers.linear import Linear
from fdiff.models.layers.norm import GroupNorm
from fdiff.models.layers.parameter import parameter

HEAD = 32  # channels of a head of the attention
GROUPS = 8  # of the norms between the convolutions of a motion
# A cubic filter that halves a sequence; twice of it doubles one. Checkpoints hold it too, as a buffer.
CUBIC = (-0.01171875, -0.03515625, 0.11328125, 0.43359375, 0.43359375, 0.11328125, -0.03515625, -0.01171875)


def taps(module: nn.Module, name: str, factor: int) -> jax.Array:
    """The filter as the checkpoint has it, which no training changes."""
    made = parameter(module, f"{name}.kernel", lambda *_: jnp.asarray(CUBIC, jnp.float32) * factor, (len(CUBIC),))
    return jax.lax.stop_gradient(made)


def halve(x: jax.Array, filter: jax.Array) -> jax.Array:
    """Filter, and keep every second place: (b, n, c) -> (b, n // 2, c), x being reflected at its ends."""
    x, length = jnp.pad(x, ((0, 0), (3, 3), (0, 0)), mode="reflect"), x.shape[1] // 2
    parts = (filter[k].astype(x.dtype) * x[:, k : k + 2 * length - 1 : 2] for k in range(len(CUBIC)))
    return jnp.asarray(sum(parts))


def double(x: jax.Array, filter: jax.Array) -> jax.Array:
    """Insert zeros, and filter: (b, n, c) -> (b, 2 n, c), x being reflected at its ends."""
    batch, length, channels = x.shape
    x = jnp.pad(x, ((0, 0), (2, 2), (0, 0)), mode="reflect")
    shifted = [x[:, j : j + length] for j in range(5)]
    filter = filter.astype(x.dtype)
    even = sum(filter[7 - 2 * j] * shifted[j] for j in range(4))
    odd = sum(filter[8 - 2 * j] * shifted[j] for j in range(1, 5))
    return jnp.stack([jnp.asarray(even), jnp.asarray(odd)], axis=2).reshape(batch, 2 * length, channels)


class ResConvBlock(nn.Module):
    """Convolution, norm and GELU, twice, plus the input: (b, n, c) -> (b, n, features); the last one ends plainly."""

    mid_features: int
    features: int
    is_last: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        residual = x
        if x.shape[-1] != self.features:
            residual = Conv1d(self.features, 1, use_bias=False, name="conv_skip")(x)
        x = Conv1d(self.mid_features, 5, padding=2, name="conv_1")(x)
        x = gelu(GroupNorm(1, name="group_norm_1")(x))
        x = Conv1d(self.features, 5, padding=2, name="conv_2")(x)
        if not self.is_last:
            x = gelu(GroupNorm(1, name="group_norm_2")(x))
        return x + residual


class SelfAttention1d(nn.Module):
    """What each place sees of all others, plus the input, heads having 32 channels: (b, n, c)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        y = GroupNorm(1, name="group_norm")(x)
        q, k, v = (
            split_heads(Linear(channels, name=name)(y), channels // HEAD) for name in ("query", "key", "value")
        )
        return x + Linear(channels, name="proj_attn")(merge_heads(attention(q, k, v)))


class SoundBlock(nn.Module):
    """Residual blocks, of `features` each, and with `attend` attention behind each: (b, n, c).

    A filter halves the sequence first, or doubles it at the end. `features` are pairs, of the middle and the end.
    """

    features: tuple[tuple[int, int], ...]
    attend: bool = False
    halves: bool = False
    doubles: bool = False
    ends: bool = False  # whether the last block is that of the network

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.halves:
            x = halve(x, taps(self, "down", 1))
        for i, (mid_features, features) in enumerate(self.features):
            last = self.ends and i == len(self.features) - 1
            x = ResConvBlock(mid_features, features, last, name=f"resnets.{i}")(x)
            if self.attend:
                x = SelfAttention1d(name=f"attentions.{i}")(x)
        return double(x, taps(self, "up", 2)) if self.doubles else x


class ResidualTemporalBlock1D(nn.Module):
    """Convolution, norm and Mish, twice, the time (b, d) being added between, plus the input: (b, n, features)."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, temb: jax.Array) -> jax.Array:
        y = self.convolve("conv_in", x) + Linear(self.features, name="time_emb")(mish(temb))[:, None]
        y = self.convolve("conv_out", y)
        return y + (x if x.shape[-1] == self.features else Conv1d(self.features, 1, name="residual_conv")(x))

    def convolve(self, name: str, x: jax.Array) -> jax.Array:
        """Convolution, norm and Mish."""
        x = Conv1d(self.features, 5, padding=2, name=f"{name}.conv1d")(x)
        return mish(GroupNorm(GROUPS, name=f"{name}.group_norm")(x))


class MotionBlock(nn.Module):
    """Residual blocks of `layers` + 1, and a convolution that halves the sequence, or doubles it.

    (b, n, c) -> the result, and what the blocks gave.
    """

    features: int
    layers: int
    resize: str | None = None  # down, up

    @nn.compact
    def __call__(self, x: jax.Array, temb: jax.Array) -> tuple[jax.Array, jax.Array]:
        for i in range(self.layers + 1):
            x = ResidualTemporalBlock1D(self.features, name=f"resnets.{i}")(x, temb)
        if self.resize == "down":
            return Conv1d(self.features, 3, 2, 1, name="downsample.conv")(x), x
        if self.resize == "up":
            return ConvTranspose1d(self.features, 4, 2, 1, name="upsample.conv")(x), x
        return x, x


class ValueFunctionMidBlock1D(nn.Module):
    """Residual blocks that halve the channels and convolutions that halve the sequence: (b, n, c) -> (b, n/4, c/4)."""

    @nn.compact
    def __call__(self, x: jax.Array, temb: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        for i in (1, 2):
            x = ResidualTemporalBlock1D(channels // 2**i, name=f"res{i}")(x, temb)
            x = Conv1d(channels // 2**i, 3, 2, 1, name=f"down{i}.conv")(x)
        return x


class OutConv1DBlock(nn.Module):
    """Convolution, norm, activation and convolution: (b, n, c) -> (b, n, features)."""

    features: int
    groups: int
    act_fn: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Conv1d(x.shape[-1], 5, padding=2, name="final_conv1d_1")(x)
        x = activation(self.act_fn)(GroupNorm(self.groups, name="final_conv1d_gn")(x))
        return Conv1d(self.features, 1, name="final_conv1d_2")(x)


class OutValueFunctionBlock(nn.Module):
    """What a motion and its time are worth: (b, n, c), (b, d) -> (b, 1)."""

    inner_features: int
    act_fn: str

    @nn.compact
    def __call__(self, x: jax.Array, temb: jax.Array) -> jax.Array:
        x = jnp.concatenate([x.swapaxes(1, 2).reshape(x.shape[0], -1), temb], axis=-1)
        x = activation(self.act_fn)(Linear(self.inner_features, name="final_block.0")(x))
        return Linear(1, name="final_block.2")(x)

