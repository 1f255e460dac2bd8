"""The blocks of UNet2DConditionModel and ControlNetModel by their Hub names.

The functions are called inside a model's compact `__call__`; `model` is that model, whose fields they read.
"""

import functools
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp

from fdiff.models.fields import OneOf
from fdiff.models.layers.attention import Attention
from fdiff.models.layers.checks import at
from fdiff.models.layers.conditions import time_features
from fdiff.models.layers.k_blocks import KDownBlock2D, KUpBlock2D
from fdiff.models.layers.resnet import ResnetBlock2D
from fdiff.models.layers.transformer_2d import DualTransformer2DModel, Transformer2DModel
from fdiff.models.layers.unet_2d_blocks import (
    DownBlock2D,
    MakeAttention,
    MakeResnet,
    UNetMidBlock2D,
    UpBlock2D,
)

DownBlock = Annotated[
    str,
    OneOf(
        (
            "CrossAttnDownBlock2D",
            "DownBlock2D",
            "ResnetDownsampleBlock2D",
            "SimpleCrossAttnDownBlock2D",
            "KDownBlock2D",
            "KCrossAttnDownBlock2D",
        )
    ),
]
MidBlock = Annotated[str, OneOf(("UNetMidBlock2DCrossAttn", "UNetMidBlock2DSimpleCrossAttn", "UNetMidBlock2D"))]
UpBlock = Annotated[
    str,
    OneOf(
        (
            "CrossAttnUpBlock2D",
            "UpBlock2D",
            "ResnetUpsampleBlock2D",
            "SimpleCrossAttnUpBlock2D",
            "KUpBlock2D",
            "KCrossAttnUpBlock2D",
        )
    ),
]
MASKED = -10000.0  # what a mask adds to the scores of tokens that are not to be seen


def score_mask(mask: jax.Array | None) -> jax.Array | None:
    """A mask (b, m), 1: look, as numbers to add to scores (b, heads, n, m)."""
    return None if mask is None else (1 - mask.astype(jnp.float32))[:, None, None] * MASKED


def conditions(
    kind: str | None, context: jax.Array | None, context_mask: jax.Array | None, mask: jax.Array | None
) -> tuple[jax.Array | None, ...]:
    """What the attention layers of a block are given; Simple ones take either mask as that of the context."""
    if kind is not None and "Simple" in kind:
        return context, context_mask if mask is None else mask
    return context, context_mask, mask


def down_block(model: nn.Module, level: int) -> DownBlock2D | KDownBlock2D:
    """The block of one level, counted from the top, on the way down."""
    kind, layers = model.down_block_types[level], at(model.layers_per_block, level)
    more = level < len(model.block_out_channels) - 1
    if kind.startswith("K"):
        width = at(model.attention_head_dim, level) if "CrossAttn" in kind else None
        resnet = make_resnet(model, kind, 1.0)
        channels = model.block_out_channels[level]
        return KDownBlock2D(channels, layers, resnet, width, more, name=f"down_blocks.{level}")
    attention = make_attention(
        model,
        kind,
        level,
        layers,
        depths=at(model.transformer_layers_per_block, level),
        only_cross_attention=at(model.only_cross_attention, level),
    )
    return DownBlock2D(
        model.block_out_channels[level],
        layers,
        make_resnet(model, kind, model.resnet_out_scale_factor if resize(kind) == "resnet" else 1.0),
        attention,
        resize(kind) if more else None,
        model.downsample_padding,
        name=f"down_blocks.{level}",
    )


def mid_block(model: nn.Module) -> UNetMidBlock2D:
    """The block at the bottom."""
    kind, level = model.mid_block_type, len(model.block_out_channels) - 1
    channels = model.block_out_channels[-1]
    only = model.mid_block_only_cross_attention
    if only is None:
        only = model.only_cross_attention is True
    attention = make_attention(
        model,
        kind,
        level,
        layers=1,
        depths=at(model.transformer_layers_per_block, level),
        only_cross_attention=only and "Simple" in kind,
    )
    layers = 0 if attention is None else 1
    resnet = make_resnet(model, kind, model.mid_block_scale_factor)
    return UNetMidBlock2D(channels, resnet, attention, layers, name="mid_block")


def up_block(model: nn.Module, level: int) -> UpBlock2D | KUpBlock2D:
    """The block of one level, counted from the top, on the way up."""
    up_level = len(model.block_out_channels) - 1 - level
    kind = model.up_block_types[up_level]
    if kind.startswith("K"):
        return k_up_block(model, level, kind, f"up_blocks.{up_level}")
    depths = at(model.transformer_layers_per_block, level)
    if model.reverse_transformer_layers_per_block is not None:
        depths = model.reverse_transformer_layers_per_block[up_level]
    attention = make_attention(
        model,
        kind,
        level,
        layers=at(model.layers_per_block, level) + 1,
        depths=depths,
        only_cross_attention=at(model.only_cross_attention, level),
    )
    return UpBlock2D(
        model.block_out_channels[level],
        make_resnet(model, kind, model.resnet_out_scale_factor if resize(kind) == "resnet" else 1.0),
        attention,
        resize(kind) if level else None,
        name=f"up_blocks.{up_level}",
    )


def k_up_block(model: nn.Module, level: int, kind: str, name: str) -> KUpBlock2D:
    """An up block of the latent upscaler; by its channels, the Hub's code knows the one at the bottom."""
    channels, above = model.block_out_channels[level], model.block_out_channels[max(level - 1, 0)]
    return KUpBlock2D(
        channels,
        above,
        at(model.layers_per_block, level),
        make_resnet(model, kind, 1.0),
        at(model.attention_head_dim, level) if "CrossAttn" in kind else None,
        bottom="CrossAttn" in kind and channels == above == time_features(model),
        upsample=level > 0,
        name=name,
    )


def make_resnet(model: nn.Module, kind: str, scale_factor: float) -> MakeResnet:
    """ResnetBlock2D with the options of the model and of a kind of block."""
    return functools.partial(
        ResnetBlock2D,
        dropout=model.dropout,
        groups=model.norm_num_groups,
        eps=model.norm_eps,
        non_linearity=model.act_fn,
        skip_time_act=model.resnet_skip_time_act and resize(kind) == "resnet",
        time_embedding_norm=model.resnet_time_scale_shift,
        output_scale_factor=scale_factor,
    )


def make_attention(
    model: nn.Module,
    kind: str,
    level: int,
    layers: int,
    depths: int | tuple[int, ...],
    only_cross_attention: bool,
) -> tuple[MakeAttention, ...] | None:
    """The attention of each layer of a block, `depths` being the number of transformer blocks in each."""
    if "CrossAttn" not in kind:
        return None
    channels = model.block_out_channels[level]
    if "Simple" in kind:
        width = at(model.attention_head_dim, level) or channels
        simple = functools.partial(
            Attention,
            heads=channels // width,
            dim_head=width,
            bias=True,
            norm_num_groups=model.norm_num_groups,
            cross_attention_norm=model.cross_attention_norm,
            residual_connection=True,
            added_kv=True,
            only_cross_attention=only_cross_attention,
        )
        return (simple,) * layers
    heads = at(model.num_attention_heads or model.attention_head_dim, level)  # a head_dim by name only
    width, groups = channels // heads, model.norm_num_groups
    if model.dual_cross_attention:
        return (functools.partial(DualTransformer2DModel, heads, width, norm_num_groups=groups),) * layers
    each = depths if isinstance(depths, tuple) else (depths,) * layers
    return tuple(
        functools.partial(
            Transformer2DModel,
            heads,
            width,
            num_layers=depth,
            norm_num_groups=groups,
            use_linear_projection=model.use_linear_projection,
            only_cross_attention=only_cross_attention,
        )
        for depth in each
    )


def resize(kind: str) -> str:
    """How a kind of block changes the size: by a convolution, or by a residual block."""
    return "resnet" if "Simple" in kind or kind.startswith("Resnet") else "conv"


def check_tokens(model: nn.Module, context: jax.Array | None) -> None:
    """Refuse tokens of another length than those that the model was made for."""
    width = model.cross_attention_dim
    if context is None or not isinstance(width, int):
        return
    if context.ndim != 3 or context.shape[-1] != width:
        raise ValueError(
            f"Tokens must be (batch, number, {width}) for this {type(model).__name__}; they are {context.shape}."
        )
