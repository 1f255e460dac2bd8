"""The blocks of the U-Net in Stable Diffusion's latent upscaler, which come from k-diffusion (Crowson 2022).

The time enters through the norms, a fixed filter halves and doubles the size, and an up block sees only the last
output of its level.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from fdiff.models.layers.attention import Attention
from fdiff.models.layers.norm import AdaGroupNorm
from fdiff.models.layers.resnet import ResnetBlock2D, fir
from fdiff.models.layers.unet_2d_blocks import MakeResnet

GROUP = 32  # channels in a group of a norm


class KDownBlock2D(nn.Module):
    """Residual blocks, each with attention if `dim_head` is a number, then half the size."""

    channels: int
    num_layers: int
    resnet: MakeResnet
    dim_head: int | None = None
    downsample: bool = True

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        temb: jax.Array,
        *conditions: jax.Array | None,
        residual: jax.Array | None = None,
    ) -> tuple[jax.Array, list[jax.Array]]:
        outputs = []
        for i in range(self.num_layers):
            x = k_resnet(self.resnet, x, self.channels)(name=f"resnets.{i}")(x, temb)
            if self.dim_head is not None:
                attention = KAttentionBlock(self.dim_head, not self.downsample, name=f"attentions.{i}")
                x = attention(x, temb, *conditions)
            outputs.append(x)
        if residual is not None:
            x += residual
            outputs[-1] = x
        return k_downsample(x) if self.downsample else x, outputs


class KUpBlock2D(nn.Module):
    """Residual blocks, each with attention if `dim_head` is a number, then twice the size.

    The first sees the last of the skips too, unless the block is at the bottom; the last has `out_channels`.
    """

    channels: int
    out_channels: int
    num_layers: int
    resnet: MakeResnet
    dim_head: int | None = None
    bottom: bool = False
    upsample: bool = True

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        skips: list[jax.Array],
        temb: jax.Array,
        *conditions: jax.Array | None,
        size: tuple[int, int] | None = None,
    ) -> jax.Array:
        if not self.bottom:
            x = jnp.concatenate([x, skips[0]], axis=-1)
        for i in range(self.num_layers):
            last = self.out_channels if i == self.num_layers - 1 else self.channels
            resnet = k_resnet(self.resnet, x, last if self.dim_head is None else self.channels)
            x = resnet(conv_2d_out_channels=last, name=f"resnets.{i}")(x, temb)
            if self.dim_head is not None:
                attention = KAttentionBlock(self.dim_head, self.bottom, name=f"attentions.{i}")
                x = attention(x, temb, *conditions)
        return k_upsample(x) if self.upsample else x


class KAttentionBlock(nn.Module):
    """Attention to itself, if asked for, and to a context; each normalized with the time and added to x."""

    dim_head: int
    self_attention: bool

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        temb: jax.Array,
        context: jax.Array | None = None,
        context_mask: jax.Array | None = None,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        channels = x.shape[-1]
        norm = functools.partial(AdaGroupNorm, max(1, channels // GROUP))
        attention = functools.partial(Attention, channels // self.dim_head, self.dim_head, bias=True)
        if self.self_attention:
            x += attention(name="attn1")(norm(name="norm1")(x, temb), None, mask)
        attn2 = attention(cross_attention_norm="layer_norm", name="attn2")
        return x + attn2(norm(name="norm2")(x, temb), context, mask if context is None else context_mask)


def k_resnet(resnet: MakeResnet, x: jax.Array, channels: int) -> functools.partial[ResnetBlock2D]:
    """ResnetBlock2D as these blocks have it."""
    return functools.partial(
        resnet,
        channels,
        groups=x.shape[-1] // GROUP,
        groups_out=channels // GROUP,
        time_embedding_norm="ada_group",
        conv_shortcut_bias=False,
    )


def k_downsample(x: jax.Array) -> jax.Array:
    """Filter a picture mirrored at its borders, then keep every second row and column."""
    for axis in (1, 2):
        x = fir(mirrored(x, axis), axis, 2)
    return x


def k_upsample(x: jax.Array) -> jax.Array:
    """Mirror a picture at its borders, insert zeros, then filter."""
    for axis in (1, 2):
        pads = [(0, 0, int(i == axis)) for i in range(4)]
        x = 2 * fir(jax.lax.pad(mirrored(x, axis), jnp.zeros((), x.dtype), pads), axis, 1)
    return x


def mirrored(x: jax.Array, axis: int) -> jax.Array:
    """One row or column more at each end: the second and the last but one."""
    return jnp.pad(x, [(int(i == axis),) * 2 for i in range(4)], mode="reflect")
