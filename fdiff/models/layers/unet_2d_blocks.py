"""The blocks of the U-Nets: down, middle and up.

Every block gets `resnet` and `attention`: the modules with the options that a whole model shares already
filled in. `attention` serves all layers, or is a tuple with one for each. What a block's call is given as
`conditions` goes on to its attention layers. Submodules have the checkpoint's names.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fdiff.models.layers.freeu import freeu
from fdiff.models.layers.linear import Conv
from fdiff.models.layers.norm import GroupNorm
from fdiff.models.layers.resnet import (
    Downsample2D,
    ResnetBlock2D,
    Upsample2D,
    fir_downsample,
    fir_upsample,
)

MakeResnet = Callable[..., ResnetBlock2D]
MakeAttention = Callable[..., nn.Module]


class DownBlock2D(nn.Module):
    """Residual blocks, each with attention if asked for, then a layer that halves the size.

    Returns the result and what the up block of the same level will see: every block's output. `residual` is
    added to the output of the last residual block.
    """

    channels: int
    num_layers: int
    resnet: MakeResnet
    attention: MakeAttention | tuple[MakeAttention, ...] | None = None
    downsample: str | None = "conv"
    padding: int = 1

    @nn.compact
    def __call__(
        self, x: jax.Array, temb: jax.Array | None, *conditions: Any, residual: jax.Array | None = None
    ) -> tuple[jax.Array, list[jax.Array]]:
        outputs = []
        for i in range(self.num_layers):
            x = self.resnet(self.channels, name=f"resnets.{i}")(x, temb)
            if self.attention is not None:
                x = of_layer(self.attention, i)(name=f"attentions.{i}")(x, *conditions)
            outputs.append(x)
        if residual is not None:
            x += residual
            outputs[-1] = x
        if self.downsample == "conv":
            x = Downsample2D(self.channels, self.padding, name="downsamplers.0")(x)
        elif self.downsample == "resnet":
            x = self.resnet(self.channels, down=True, name="downsamplers.0")(x, temb)
        return x, outputs if self.downsample is None else [*outputs, x]


class UpBlock2D(nn.Module):
    """Residual blocks, one for each of `skips`, which they also see, then a layer that doubles the size.

    `size` is the (height, width) that a convolution's result must have where it is not the double. A variable `freeu`
    of a collection "attention" holds the two numbers of `fdiff.models.layers.freeu`.
    """

    channels: int
    resnet: MakeResnet
    attention: MakeAttention | tuple[MakeAttention, ...] | None = None
    upsample: str | None = "conv"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        skips: list[jax.Array],
        temb: jax.Array | None,
        *conditions: Any,
        size: tuple[int, int] | None = None,
    ) -> jax.Array:
        for i, skip in enumerate(skips):
            if self.has_variable("attention", "freeu"):
                x, skip = freeu(x, skip, *self.get_variable("attention", "freeu"))
            x = jnp.concatenate([x, skip], axis=-1)
            x = self.resnet(self.channels, name=f"resnets.{i}")(x, temb)
            if self.attention is not None:
                x = of_layer(self.attention, i)(name=f"attentions.{i}")(x, *conditions)
        if self.upsample == "conv":
            x = Upsample2D(self.channels, name="upsamplers.0")(x, size)
        elif self.upsample == "resnet":
            x = self.resnet(self.channels, up=True, name="upsamplers.0")(x, temb)
        return x


class UNetMidBlock2D(nn.Module):
    """Residual block, then attention (if any) and residual block, `num_layers` times."""

    channels: int
    resnet: MakeResnet
    attention: MakeAttention | tuple[MakeAttention, ...] | None = None
    num_layers: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, temb: jax.Array | None, *conditions: Any) -> jax.Array:
        x = self.resnet(self.channels, name="resnets.0")(x, temb)
        for i in range(self.num_layers):
            if self.attention is not None:
                x = of_layer(self.attention, i)(name=f"attentions.{i}")(x, *conditions)
            x = self.resnet(self.channels, name=f"resnets.{i + 1}")(x, temb)
        return x


class SkipDownBlock2D(nn.Module):
    """A down block of NCSN++ (Song et al. 2021): it halves a picture `skip` too and adds it."""

    channels: int
    num_layers: int
    resnet: MakeResnet
    attention: MakeAttention | None = None
    downsample: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, temb: jax.Array, skip: jax.Array) -> tuple[jax.Array, list[jax.Array], jax.Array]:
        outputs = []
        resnet = functools.partial(self.resnet, self.channels, groups_out=groups_for(self.channels))
        for i in range(self.num_layers):
            x = resnet(groups=groups_for(x.shape[-1]), name=f"resnets.{i}")(x, temb)
            if self.attention is not None:
                x = self.attention(name=f"attentions.{i}")(x)
            outputs.append(x)
        if self.downsample:
            block = resnet(
                groups=groups_for(self.channels),
                use_in_shortcut=True,
                down=True,
                kernel="fir",
                name="resnet_down",
            )
            skip = fir_downsample(skip)
            x = block(x, temb) + Conv(self.channels, 1, padding=0, name="skip_conv")(skip)
            outputs.append(x)
        return x, outputs, skip


class SkipUpBlock2D(nn.Module):
    """An up block of NCSN++: it doubles a picture `skip` too and adds one made of the features to it."""

    channels: int
    resnet: MakeResnet
    attention: MakeAttention | None = None
    upsample: bool = True
    eps: float = 1e-5

    @nn.compact
    def __call__(
        self, x: jax.Array, skips: list[jax.Array], temb: jax.Array, skip: jax.Array | None
    ) -> tuple[jax.Array, jax.Array | None]:
        groups = groups_for(self.channels)
        resnet = functools.partial(self.resnet, self.channels, groups_out=groups)
        for i, seen in enumerate(skips):
            channels = (x.shape[-1], seen.shape[-1])
            x = jnp.concatenate([x, seen], axis=-1)
            # AttnSkipUpBlock2D quarters only the second number on the Hub.
            quarter = sum(channels) // 4 if self.attention is None else channels[0] + channels[1] // 4
            x = resnet(groups=min(quarter, 32), name=f"resnets.{i}")(x, temb)
        if self.attention is not None:
            x = self.attention(name="attentions.0")(x)
        if skip is not None:
            skip = fir_upsample(skip)
        if self.upsample:
            picture = nn.silu(GroupNorm(groups, self.eps, name="skip_norm")(x))
            picture = Conv(3, name="skip_conv")(picture)
            skip = picture if skip is None else skip + picture
            block = resnet(groups=groups, use_in_shortcut=True, up=True, kernel="fir", name="resnet_up")
            x = block(x, temb)
        return x, skip


def of_layer(attention: MakeAttention | tuple[MakeAttention, ...], layer: int) -> MakeAttention:
    """The attention of one layer."""
    return attention[layer] if isinstance(attention, tuple) else attention


def groups_for(channels: int) -> int:
    """A quarter of the channels, 32 at most: the number of groups in NCSN++."""
    return min(channels // 4, 32)
