"""UNet2DModel: the network of DDPM, DDIM and NCSN++, with or without classes."""

import functools
import math
from collections.abc import Callable
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import (
    Activation,
    Channels,
    Count,
    Dropout,
    Epsilon,
    Factor,
    Index,
    Layers,
    OneOf,
    Padding,
    Pixels,
    TimeShift,
    Widths,
)
from fdiff.models.layers.attention import Attention
from fdiff.models.layers.checks import check_groups, check_heads, check_layers, require
from fdiff.models.layers.embeddings import GaussianFourierProjection, TimestepEmbedding, sinusoidal
from fdiff.models.layers.linear import Conv, Embed
from fdiff.models.layers.norm import GroupNorm
from fdiff.models.layers.resnet import ResnetBlock2D
from fdiff.models.layers.unet_2d_blocks import (
    DownBlock2D,
    MakeAttention,
    MakeResnet,
    SkipDownBlock2D,
    SkipUpBlock2D,
    UNetMidBlock2D,
    UpBlock2D,
    groups_for,
)
from fdiff.models.model import Model

ROOT2 = math.sqrt(2)  # the blocks of NCSN++ divide the sum of two terms by this
DownBlock = Annotated[
    str,
    OneOf(("DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D", "SkipDownBlock2D", "AttnSkipDownBlock2D")),
]
UpBlock = Annotated[
    str, OneOf(("UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D", "SkipUpBlock2D", "AttnSkipUpBlock2D"))
]
Resize = Annotated[str, OneOf(("conv", "resnet"))]


class UNet2DModel(Model):
    """A U-Net from a noisy picture and its time to a picture (Ho et al. 2020).

    sample (b, h, w, in) -> (b, h, w, out), h and w multiples of 2^(levels - 1). `timestep` is a number or
    (b,); `class_labels` are integers (b,), times (b,) if class_embed_type is "timestep", or embeddings
    (b, d) if it is "identity". Dropout acts where `apply` is given rngs={"dropout": key}.

        model, params = UNet2DModel.from_pretrained("google/ddpm-cat-256")
        residual = model.apply({"params": params}, noisy, t)
    """

    sample_size: Pixels | tuple[Pixels, Pixels] | None = None
    in_channels: Channels = 3
    out_channels: Channels = 3
    center_input_sample: bool = False
    time_embedding_type: Annotated[str, OneOf(("positional", "fourier", "learned"))] = "positional"
    time_embedding_dim: Count | None = None
    freq_shift: Index = 0
    flip_sin_to_cos: bool = True
    down_block_types: tuple[DownBlock, ...] = (
        "DownBlock2D",
        "AttnDownBlock2D",
        "AttnDownBlock2D",
        "AttnDownBlock2D",
    )
    mid_block_type: Annotated[str, OneOf(("UNetMidBlock2D",))] | None = "UNetMidBlock2D"
    up_block_types: tuple[UpBlock, ...] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    block_out_channels: Widths = (224, 448, 672, 896)
    layers_per_block: Layers = 2
    mid_block_scale_factor: Factor = 1.0
    downsample_padding: Padding = 1
    downsample_type: Resize = "conv"
    upsample_type: Resize = "conv"
    dropout: Dropout = 0.0
    act_fn: Activation = "silu"
    attention_head_dim: Count | None = 8
    norm_num_groups: Count | None = 32
    attn_norm_num_groups: Count | None = None
    norm_eps: Epsilon = 1e-5
    resnet_time_scale_shift: TimeShift = "default"
    add_attention: bool = True
    class_embed_type: Annotated[str, OneOf(("timestep", "identity"))] | None = None
    num_class_embeds: Count | None = None
    num_train_timesteps: Count | None = None

    @nn.compact
    def __call__(
        self,
        sample: jax.Array,
        timestep: jax.Array | float,
        class_labels: jax.Array | None = None,
    ) -> jax.Array:
        self.check(sample.shape)
        t = jnp.broadcast_to(jnp.asarray(timestep), sample.shape[:1])
        temb = self.embed(t, class_labels)

        x = 2 * sample - 1 if self.center_input_sample else sample
        picture = x
        x = Conv(self.block_out_channels[0], name="conv_in")(x)
        outputs = [x]
        for i, kind in enumerate(self.down_block_types):
            down = self.down_block(i, kind)
            if isinstance(down, SkipDownBlock2D):
                x, more, picture = down(x, temb, picture)
            else:
                x, more = down(x, temb)
            outputs += more

        if self.mid_block_type is not None:
            x = self.mid_block()(x, temb)

        skip: jax.Array | None = None
        for i, kind in enumerate(self.up_block_types):
            skips = [outputs.pop() for _ in range(self.layers_per_block + 1)]
            up = self.up_block(i, kind)
            if isinstance(up, SkipUpBlock2D):
                x, skip = up(x, skips, temb, skip)
            else:
                x = up(x, skips, temb)

        groups = self.norm_num_groups or groups_for(self.block_out_channels[0])
        x = nn.silu(GroupNorm(groups, self.norm_eps, name="conv_norm_out")(x))
        x = Conv(self.out_channels, name="conv_out")(x)
        if skip is not None:
            x += skip
        if self.time_embedding_type == "fourier":
            x = (x.astype(jnp.float32) / t[:, None, None, None]).astype(x.dtype)
        return x

    def example_inputs(self) -> tuple[np.ndarray, ...]:
        """A picture, a time and, where the model is conditional, a class."""
        size = 2 ** (len(self.block_out_channels) - 1)
        inputs = [np.zeros((1, size, size, self.in_channels), np.float32), np.ones((1,), np.int32)]
        if self.class_embed_type == "identity":
            inputs.append(np.zeros((1, self.time_embedding_dim or 4 * self.block_out_channels[0]), np.float32))
        elif self.conditional:
            inputs.append(np.ones((1,), np.int32))
        return tuple(inputs)

    @property
    def conditional(self) -> bool:
        """Whether `class_labels` must be given."""
        return self.class_embed_type is not None or self.num_class_embeds is not None

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        widths, groups = self.block_out_channels, self.norm_num_groups
        down, up = self.down_block_types, self.up_block_types
        equal = len(down) == len(up) == len(widths)
        require(equal, "down_block_types, up_block_types and block_out_channels must be equally long.")
        check_layers("layers_per_block", self.layers_per_block * len(widths))
        skips, plain = ({"Skip" in kind for kind in down + up} & {one} for one in (True, False))
        pictures = (self.in_channels, self.out_channels) == (3, 3)
        require(pictures or not skips, "Skip blocks need in_channels 3 and out_channels 3.")
        null = groups is not None or not plain
        require(null, "norm_num_groups may be null where all blocks are Skip blocks only; give a number.")
        if groups is not None:
            check_groups("norm_num_groups", groups, widths)
        if skips:
            require(min(widths) >= 4, f"Skip blocks need at least 4 channels; block_out_channels are {widths}.")
            for width in widths:
                check_groups("block_out_channels", groups_for(width), (width,))
        learned = self.time_embedding_type != "learned" or self.num_train_timesteps is not None
        require(learned, "time_embedding_type 'learned' needs num_train_timesteps.")
        small = self.time_embedding_type == "positional" and widths[0] // 2 <= self.freq_shift
        require(not small, f"freq_shift {self.freq_shift} must be below half of block_out_channels[0], {widths[0]}.")
        self.check_attention()

    def check_attention(self) -> None:
        """Refuse options that do not fit the channels that attend."""
        widths = self.block_out_channels
        levels = [(width, kind) for width, kind in zip(widths, self.down_block_types, strict=True)]
        levels += [(width, kind) for width, kind in zip(widths[::-1], self.up_block_types, strict=True)]
        if self.mid_block_type is not None and self.add_attention:
            levels.append((widths[-1], "Attn"))
            if self.attn_norm_num_groups is not None:
                check_groups("attn_norm_num_groups", self.attn_norm_num_groups, widths[-1:])
        for width, kind in levels:
            if "Attn" in kind and self.attention_head_dim is not None:
                check_heads("attention_head_dim", self.attention_head_dim, width)
            if "AttnSkip" in kind:
                check_groups(kind, 32, (width,))

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse options that do not fit together, and a sample of the wrong shape."""
        self.check_options()
        multiple = 2 ** (len(self.block_out_channels) - 1)
        if len(shape) != 4 or shape[3] != self.in_channels or shape[1] % multiple or shape[2] % multiple:
            raise ValueError(
                f"sample must be (batch, height, width, {self.in_channels}), height and width multiples of "
                f"{multiple}; it is {shape}."
            )

    def embed(self, t: jax.Array, class_labels: jax.Array | None) -> jax.Array:
        """What the residual blocks see of the time and the class: (b,) -> (b, d)."""
        first = self.block_out_channels[0]
        features = self.time_embedding_dim or 4 * first
        project: Callable[[jax.Array], jax.Array]
        if self.time_embedding_type == "fourier":
            project = GaussianFourierProjection(first, scale=16.0, name="time_proj")
        elif self.time_embedding_type == "learned":
            table = Embed(self.num_train_timesteps or 0, first, name="time_proj")
            project = lambda t: table(jnp.round(t).astype(jnp.int32))  # noqa: E731 - plans hold whole times as floats
        else:
            project = functools.partial(
                sinusoidal, features=first, flip_sin_to_cos=self.flip_sin_to_cos, freq_shift=self.freq_shift
            )
        temb = TimestepEmbedding(features, name="time_embedding")(project(t))

        if self.conditional != (class_labels is not None):
            verb = "needs" if self.conditional else "takes no"
            raise ValueError(f"This UNet2DModel {verb} class_labels; see class_embed_type and num_class_embeds.")
        if class_labels is None:
            return temb
        if self.class_embed_type == "identity":
            return temb + class_labels
        if self.class_embed_type == "timestep":
            return temb + TimestepEmbedding(features, name="class_embedding")(project(class_labels))
        return temb + Embed(self.num_class_embeds or 0, features, name="class_embedding")(class_labels)

    def resnet(self, scale_factor: float = 1.0) -> MakeResnet:
        """ResnetBlock2D with the options of this model."""
        return functools.partial(
            ResnetBlock2D,
            dropout=self.dropout,
            groups=self.norm_num_groups or 0,
            eps=self.norm_eps,
            non_linearity=self.act_fn,
            time_embedding_norm=self.resnet_time_scale_shift,
            output_scale_factor=scale_factor,
        )

    def attention(self, channels: int, groups: int | None, scale_factor: float = 1.0) -> MakeAttention:
        """Attention with the options of this model."""
        width = self.attention_head_dim or channels
        return functools.partial(
            Attention,
            heads=channels // width,
            dim_head=width,
            bias=True,
            eps=self.norm_eps,
            norm_num_groups=groups,
            rescale_output_factor=scale_factor,
            residual_connection=True,
        )

    def down_block(self, level: int, kind: str) -> DownBlock2D | SkipDownBlock2D:
        """The block of one level on the way down."""
        channels, layers = self.block_out_channels[level], self.layers_per_block
        more = level < len(self.block_out_channels) - 1
        name = f"down_blocks.{level}"
        if "Skip" in kind:
            attention = self.attention(channels, 32, ROOT2) if "Attn" in kind else None
            return SkipDownBlock2D(channels, layers, self.resnet(ROOT2), attention, more, name=name)
        attention = self.attention(channels, self.norm_num_groups) if "Attn" in kind else None
        resize = {"DownBlock2D": "conv", "ResnetDownsampleBlock2D": "resnet"}.get(kind, self.downsample_type)
        return DownBlock2D(
            channels,
            layers,
            self.resnet(),
            attention,
            resize if more else None,
            self.downsample_padding,
            name=name,
        )

    def mid_block(self) -> UNetMidBlock2D:
        """The block at the bottom."""
        channels = self.block_out_channels[-1]
        groups = self.norm_num_groups or groups_for(channels)
        attention_groups = self.attn_norm_num_groups
        if attention_groups is None and self.resnet_time_scale_shift == "default":
            attention_groups = groups
        factor = self.mid_block_scale_factor
        attention = self.attention(channels, attention_groups, factor) if self.add_attention else None
        resnet = functools.partial(self.resnet(factor), groups=groups)
        return UNetMidBlock2D(channels, resnet, attention, name="mid_block")

    def up_block(self, level: int, kind: str) -> UpBlock2D | SkipUpBlock2D:
        """The block of one level on the way up, counted from the bottom."""
        channels = self.block_out_channels[-1 - level]
        more = level < len(self.block_out_channels) - 1
        name = f"up_blocks.{level}"
        if "Skip" in kind:
            attention = self.attention(channels, 32, ROOT2) if "Attn" in kind else None
            resnet = self.resnet(ROOT2)
            return SkipUpBlock2D(channels, resnet, attention, more, self.norm_eps, name=name)
        attention = self.attention(channels, self.norm_num_groups) if "Attn" in kind else None
        resize = {"UpBlock2D": "conv", "ResnetUpsampleBlock2D": "resnet"}.get(kind, self.upsample_type)
        return UpBlock2D(channels, self.resnet(), attention, resize if more else None, name=name)
