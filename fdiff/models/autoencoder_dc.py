"""AutoencoderDC: pictures to the few latents of Sana, each 32 pixels wide, and back."""

import itertools
from typing import Annotated, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Activation, Channels, Count, Depth, Factor, Kernel, OneOf, Widths
from fdiff.models.layers.activations import activation
from fdiff.models.layers.attention import linear_attention, merge_heads
from fdiff.models.layers.checks import at, check_heads, check_layers, require
from fdiff.models.layers.feed_forward import GLUMBConv
from fdiff.models.layers.linear import Conv, Linear
from fdiff.models.layers.norm import BatchNorm, RMSNorm
from fdiff.models.layers.patches import shuffle, unshuffle
from fdiff.models.model import Model

Block = Annotated[str, OneOf(("ResBlock", "EfficientViTBlock"))]
Norm = Annotated[str, OneOf(("rms_norm", "batch_norm"))]
Down = Annotated[str, OneOf(("pixel_unshuffle", "conv"))]
Up = Annotated[str, OneOf(("pixel_shuffle", "interpolate"))]
Scales = tuple[Kernel, ...]
EPSILON = 1e-5
OF_LEVELS = ("block_types", "block_out_channels", "layers_per_block", "qkv_multiscales")  # of each half


class AutoencoderDC(Model):
    """The deep compression autoencoder (Chen et al. 2024), whose latents have no distribution.

    encode: pictures (b, h, w, in_channels) in [-1, 1] -> latents (b, h / f, w / f, latent_channels)
    decode: the inverse

    f is 2^(levels - 1), 32 for Sana. Latents are `scale`d before a denoiser sees them and `unscale`d before `decode`.
    What goes down or up a level is added to its own pixels, put into channels or out of them and averaged or repeated
    (section 3.2). A level without layers is passed over.

        name = "mit-han-lab/dc-ae-f32c32-sana-1.1-diffusers"
        vae, params = AutoencoderDC.from_pretrained(name)
    """

    in_channels: Channels = 3
    latent_channels: Channels = 32
    attention_head_dim: Count = 32
    encoder_block_types: Block | tuple[Block, ...] = "ResBlock"
    decoder_block_types: Block | tuple[Block, ...] = "ResBlock"
    encoder_block_out_channels: Widths = (128, 256, 512, 512, 1024, 1024)
    decoder_block_out_channels: Widths = (128, 256, 512, 512, 1024, 1024)
    encoder_layers_per_block: tuple[Depth, ...] = (2, 2, 2, 3, 3, 3)
    decoder_layers_per_block: tuple[Depth, ...] = (3, 3, 3, 3, 3, 3)
    encoder_qkv_multiscales: tuple[Scales, ...] = ((), (), (), (5,), (5,), (5,))
    decoder_qkv_multiscales: tuple[Scales, ...] = ((), (), (), (5,), (5,), (5,))
    upsample_block_type: Up = "pixel_shuffle"
    downsample_block_type: Down = "pixel_unshuffle"
    decoder_norm_types: Norm | tuple[Norm, ...] = "rms_norm"
    decoder_act_fns: Activation | tuple[Activation, ...] = "silu"
    encoder_out_shortcut: bool = True
    decoder_in_shortcut: bool = True
    decoder_conv_act_fn: Activation = "relu"
    scaling_factor: Factor = 1.0

    def setup(self) -> None:
        """Make the two halves."""
        self.check_options()
        head, latents = self.attention_head_dim, self.latent_channels
        self.encoder = DeepEncoder(
            self.levels("encoder"), latents, head, self.downsample_block_type, self.encoder_out_shortcut
        )
        self.decoder = DeepDecoder(
            self.levels("decoder"), self.in_channels, head, self.upsample_block_type, self.decoder_in_shortcut,
            self.decoder_conv_act_fn,
        )  # fmt: skip

    def levels(self, half: str) -> tuple["Level", ...]:
        """What a half consists of, from the pictures to the latents."""
        kinds, widths, layers, scales = (getattr(self, f"{half}_{name}") for name in OF_LEVELS)
        decodes = half == "decoder"
        norms, functions = (self.decoder_norm_types, self.decoder_act_fns) if decodes else ("rms_norm", "silu")
        return tuple(
            Level(at(kinds, i), width, layers[i], scales[i], at(norms, i), at(functions, i))
            for i, width in enumerate(widths)
        )

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        for half in ("encoder", "decoder"):
            widths, layers = getattr(self, f"{half}_block_out_channels"), getattr(self, f"{half}_layers_per_block")
            lists = [f"{half}_{name}" for name in OF_LEVELS]
            for name in lists if half == "encoder" else [*lists, "decoder_norm_types", "decoder_act_fns"]:
                value = getattr(self, name)
                good = not isinstance(value, tuple) or len(value) == len(widths)
                require(good, f"{name} and {half}_block_out_channels must be equally long.")
            check_layers(f"{half}_layers_per_block", sum(layers))
            good = all(layers[1:]) and (layers[0] > 0 or len(layers) > 1)
            require(good, f"{half}_layers_per_block {layers} can be 0 for the first of several levels alone.")
            begun = widths[0 if layers[0] else 1 :]
            for one, other in itertools.pairwise(begun):
                require(4 * one % other == 0, f"{half}_block_out_channels: {other} must divide 4 * {one}.")
            if half == "encoder" and self.downsample_block_type == "pixel_unshuffle":
                require(not any(width % 4 for width in begun), f"{half}_block_out_channels must be multiples of 4.")
            good = not self.shortcuts(half) or widths[-1] % self.latent_channels == 0
            require(good, f"latent_channels {self.latent_channels} must divide {half}_block_out_channels[-1].")
            for level in self.levels(half):
                if level.kind == "EfficientViTBlock":
                    check_heads("attention_head_dim", self.attention_head_dim, level.width)

    def shortcuts(self, half: str) -> bool:
        """Whether something goes around the convolution beside the latents."""
        return self.encoder_out_shortcut if half == "encoder" else self.decoder_in_shortcut

    def __call__(self, sample: jax.Array) -> jax.Array:
        """Encode and decode."""
        return self.decode(self.encode(sample))

    def encode(self, sample: jax.Array) -> jax.Array:
        """The latents of pictures. Raises ValueError for other shapes."""
        factor = 2 ** (len(self.encoder_block_out_channels) - 1)
        good = sample.ndim == 4 and sample.shape[3] == self.in_channels and not any(
            side % factor for side in sample.shape[1:3]
        )
        require(good, f"Pictures must be (batch, height, width, {self.in_channels}), height and width multiples of "
                f"{factor}; they are {sample.shape}.")  # fmt: skip
        return self.encoder(sample)

    def decode(self, latents: jax.Array) -> jax.Array:
        """The pictures of latents. Raises ValueError for other shapes."""
        good = latents.ndim == 4 and latents.shape[3] == self.latent_channels
        require(good, f"Latents must be (batch, height, width, {self.latent_channels}); they are {latents.shape}.")
        return self.decoder(latents)

    def scale(self, latents: jax.Array) -> jax.Array:
        """What `encode` gives -> what a denoiser takes."""
        return latents * self.scaling_factor

    def unscale(self, latents: jax.Array) -> jax.Array:
        """The inverse of `scale`."""
        return latents / self.scaling_factor

    def example_inputs(self) -> tuple[np.ndarray]:
        """One picture of one latent."""
        size = 2 ** (len(self.encoder_block_out_channels) - 1)
        return (np.zeros((1, size, size, self.in_channels), np.float32),)


class Level(NamedTuple):
    """Blocks of one kind, and how they normalize."""

    kind: str
    width: int
    layers: int
    scales: tuple[int, ...]
    norm: str
    act_fn: str

    def block(self, dim_head: int, name: str) -> nn.Module:
        """One of them."""
        if self.kind == "ResBlock":
            return DeepResBlock(self.norm, self.act_fn, name=name)
        return EfficientViTBlock(dim_head, self.scales, self.norm, name=name)


class DeepEncoder(nn.Module):
    """Pictures to latents."""

    levels: tuple[Level, ...]
    out_channels: int
    dim_head: int
    downsample: str
    shortcut: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        levels, unshuffles = self.levels, self.downsample == "pixel_unshuffle"
        if levels[0].layers:
            x = Conv(levels[0].width, name="conv_in")(x)
        else:
            x = DeepDown(levels[1].width, unshuffles, shortcut=False, name="conv_in")(x)
        for i, level in enumerate(levels):
            for k in range(level.layers):
                x = level.block(self.dim_head, f"down_blocks.{i}.{k}")(x)
            if i < len(levels) - 1 and level.layers:
                x = DeepDown(levels[i + 1].width, unshuffles, name=f"down_blocks.{i}.{level.layers}")(x)
        y = Conv(self.out_channels, name="conv_out")(x)
        return y + averaged(x, self.out_channels) if self.shortcut else y


class DeepDecoder(nn.Module):
    """Latents to pictures."""

    levels: tuple[Level, ...]
    out_channels: int
    dim_head: int
    upsample: str
    shortcut: bool
    act_fn: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        levels, interpolates = self.levels, self.upsample == "interpolate"
        y = Conv(levels[-1].width, name="conv_in")(x)
        x = y + repeated(x, levels[-1].width) if self.shortcut else y
        for i, level in reversed(list(enumerate(levels))):
            rises = i < len(levels) - 1 and level.layers > 0
            if rises:
                x = DeepUp(level.width, interpolates, name=f"up_blocks.{i}.0")(x)
            for k in range(level.layers):
                x = level.block(self.dim_head, f"up_blocks.{i}.{k + rises}")(x)
        x = activation(self.act_fn)(RMSNorm(EPSILON, use_bias=True, name="norm_out")(x))
        if levels[0].layers:
            return Conv(self.out_channels, name="conv_out")(x)
        return DeepUp(self.out_channels, interpolates, shortcut=False, name="conv_out")(x)


class DeepDown(nn.Module):
    """(b, 2 h, 2 w, c) -> (b, h, w, features): by a convolution, plus its own pixels as channels, averaged."""

    features: int
    unshuffles: bool
    shortcut: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.unshuffles:
            y = unshuffle(Conv(self.features // 4, name="conv")(x), 2)
        else:
            y = Conv(self.features, stride=2, name="conv")(x)
        return y + averaged(unshuffle(x, 2), self.features) if self.shortcut else y


class DeepUp(nn.Module):
    """(b, h, w, c) -> (b, 2 h, 2 w, features): by a convolution, plus its own channels, repeated, as pixels."""

    features: int
    interpolates: bool
    shortcut: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.interpolates:
            y = Conv(self.features, doubled=True, name="conv")(x)
        else:
            y = shuffle(Conv(4 * self.features, name="conv")(x), 2)
        return y + shuffle(repeated(x, 4 * self.features), 2) if self.shortcut else y


class DeepResBlock(nn.Module):
    """Two convolutions with an activation between, normalized, plus the input."""

    norm: str
    act_fn: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = activation(self.act_fn)(Conv(x.shape[-1], name="conv1")(x))
        return x + normalize(self.norm, "norm")(Conv(x.shape[-1], use_bias=False, name="conv2")(y))


class EfficientViTBlock(nn.Module):
    """Attention to all pixels, then to those beside each (Cai et al. 2023)."""

    dim_head: int
    scales: tuple[int, ...]
    norm: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = MultiscaleAttention(self.dim_head, self.scales, self.norm, name="attn")(x)
        return GLUMBConv(residual=True, name="conv_out")(x)


class MultiscaleAttention(nn.Module):
    """Linear attention of pixels x (b, h, w, c), and of what is made of squares of so many pixels a side, plus x.

    Queries, keys and values lie one behind the other, and heads are cut out of all: three times dim_head channels,
    whichever they are, make up the query, the key and the value of one.
    """

    dim_head: int
    scales: tuple[int, ...]
    norm: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        heads = channels // self.dim_head
        inner = heads * self.dim_head
        y = jnp.concatenate([Linear(inner, False, name=f"to_{name}")(x) for name in "qkv"], axis=-1)
        found = [y]
        for i, size in enumerate(self.scales):
            name = f"to_qkv_multiscale.{i}.proj"
            z = Conv(3 * inner, size, padding=size // 2, use_bias=False, groups=3 * inner, name=f"{name}_in")(y)
            found.append(Conv(3 * inner, 1, padding=0, use_bias=False, groups=3 * heads, name=f"{name}_out")(z))
        all_heads = jnp.concatenate(found, axis=-1).reshape(batch, height * width, -1, 3 * self.dim_head)
        q, k, v = jnp.split(all_heads, 3, axis=-1)
        y = merge_heads(linear_attention(q, k, v)).reshape(batch, height, width, -1)
        return x + normalize(self.norm, "norm_out")(Linear(channels, False, name="to_out")(y))


def normalize(norm: str, name: str) -> nn.Module:
    """The norm of that kind."""
    return RMSNorm(EPSILON, use_bias=True, name=name) if norm == "rms_norm" else BatchNorm(EPSILON, name=name)


def averaged(x: jax.Array, features: int) -> jax.Array:
    """Means of channels side by side, so that there are as many as asked for."""
    return x.reshape(*x.shape[:-1], features, -1).mean(-1)


def repeated(x: jax.Array, features: int) -> jax.Array:
    """Each channel as often as it takes for as many as asked for."""
    return jnp.repeat(x, features // x.shape[-1], axis=-1)
