"""The blocks of ControlNet-XS (Zavadski et al. 2023): a U-Net's and, beside each, a narrow one that steers it.

Before each layer the narrow network sees what the wide one holds, and after it adds to it. Pictures (b, h, w, c) come
in pairs, `base` and `control`; `strength` multiplies what is added.
"""

import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fdiff.models.layers.attention_blocks import largest_divisor
from fdiff.models.layers.freeu import freeu
from fdiff.models.layers.linear import Conv
from fdiff.models.layers.resnet import Downsample2D, ResnetBlock2D, Upsample2D
from fdiff.models.layers.transformer_2d import Transformer2DModel
from fdiff.models.layers.unet_2d_blocks import UNetMidBlock2D


class Side(NamedTuple):
    """One of the two networks at one level."""

    channels: int
    heads: int | None  # None: no attention
    depths: tuple[int, ...]  # of the transformer in each layer
    groups: int  # of the norms; of the control network the most, where they do not divide the channels
    use_linear_projection: bool

    def attention(self, layer: int) -> Any:
        """The transformer of a layer, without its name; None where there is none."""
        if self.heads is None:
            return None
        if self.channels % self.heads:
            raise ValueError(f"{self.channels} channels cannot be split into {self.heads} heads; choose a divisor.")
        return functools.partial(
            Transformer2DModel,
            self.heads,
            self.channels // self.heads,
            num_layers=self.depths[layer],
            norm_num_groups=largest_divisor(self.channels, self.groups),
            use_linear_projection=self.use_linear_projection,
        )


class JointDownBlock2D(nn.Module):
    """Two residual blocks on either side, each with attention if asked for, then layers that halve the sizes."""

    base: Side
    control: Side
    downsample: bool

    @nn.compact
    def __call__(
        self, base: jax.Array, control: jax.Array, temb: jax.Array, strength: jax.Array, *conditions: jax.Array | None
    ) -> list[tuple[jax.Array, jax.Array]]:
        outputs = []
        for i in range(2):
            control = jnp.concatenate([control, zero_conv(base.shape[-1], f"base_to_ctrl.{i}")(base)], axis=-1)
            resnet = ResnetBlock2D(self.base.channels, groups=self.base.groups, name=f"base_resnets.{i}")
            base = attended(self.base, i, f"base_attentions.{i}", resnet(base, temb), conditions)
            resnet = ResnetBlock2D(
                self.control.channels,
                groups=largest_divisor(control.shape[-1], self.control.groups),
                groups_out=largest_divisor(self.control.channels, self.control.groups),
                eps=1e-5,
                name=f"ctrl_resnets.{i}",
            )
            control = attended(self.control, i, f"ctrl_attentions.{i}", resnet(control, temb), conditions)
            base += strength * zero_conv(base.shape[-1], f"ctrl_to_base.{i}")(control)
            outputs.append((base, control))
        if self.downsample:
            control = jnp.concatenate([control, zero_conv(base.shape[-1], "base_to_ctrl.2")(base)], axis=-1)
            base = Downsample2D(self.base.channels, name="base_downsamplers")(base)
            control = Downsample2D(self.control.channels, name="ctrl_downsamplers")(control)
            base += strength * zero_conv(base.shape[-1], "ctrl_to_base.2")(control)
            outputs.append((base, control))
        return outputs


class JointMidBlock2D(nn.Module):
    """A residual block, attention and a residual block on either side."""

    base: Side
    control: Side

    @nn.compact
    def __call__(
        self, base: jax.Array, control: jax.Array, temb: jax.Array, strength: jax.Array, *conditions: jax.Array | None
    ) -> jax.Array:
        control = jnp.concatenate([control, zero_conv(base.shape[-1], "base_to_ctrl")(base)], axis=-1)
        sides = {"base": (base, self.base.groups)}
        common = math.gcd(control.shape[-1], self.control.channels)
        sides["ctrl"] = control, largest_divisor(common, self.control.groups)
        results = []
        for name, side in (("base", self.base), ("ctrl", self.control)):
            x, groups = sides[name]
            resnet = functools.partial(ResnetBlock2D, groups=groups)
            attention = side._replace(groups=groups).attention(0)
            block = UNetMidBlock2D(side.channels, resnet, attention, name=f"{name}_midblock")
            results.append(block(x, temb, *conditions))
        return results[0] + strength * zero_conv(base.shape[-1], "ctrl_to_base")(results[1])


class JointUpBlock2D(nn.Module):
    """Three residual blocks of the base, to whose inputs the control's outputs are added, then twice the size."""

    base: Side
    upsample: bool

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        skips: list[tuple[jax.Array, jax.Array]],
        temb: jax.Array,
        strength: jax.Array,
        *conditions: jax.Array | None,
        size: tuple[int, int] | None = None,
    ) -> jax.Array:
        for i, (skip, control) in enumerate(skips):
            x += strength * zero_conv(x.shape[-1], f"ctrl_to_base.{i}")(control)
            if self.has_variable("attention", "freeu"):
                x, skip = freeu(x, skip, *self.get_variable("attention", "freeu"))
            resnet = ResnetBlock2D(self.base.channels, groups=self.base.groups, name=f"resnets.{i}")
            x = resnet(jnp.concatenate([x, skip], axis=-1), temb)
            x = attended(self.base, i, f"attentions.{i}", x, conditions)
        return Upsample2D(self.base.channels, name="upsamplers")(x, size) if self.upsample else x


def attended(side: Side, layer: int, name: str, x: jax.Array, conditions: tuple[jax.Array | None, ...]) -> jax.Array:
    """x after the transformer of a layer, if there is one."""
    attention = side.attention(layer)
    if attention is None:
        return x
    result: jax.Array = attention(name=name)(x, *conditions)
    return result


def zero_conv(channels: int, name: str) -> Conv:
    """A 1x1 convolution from one network to the other, of zeros in a new adapter."""
    return Conv(channels, 1, padding=0, name=name)
