"""The encoder and the decoder of the image autoencoders, and the distribution between them."""

import functools
from typing import Annotated, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff import keys
from fdiff.models.fields import OneOf
from fdiff.models.layers.attention import Attention
from fdiff.models.layers.linear import Conv, Embed
from fdiff.models.layers.norm import GroupNorm, SpatialNorm
from fdiff.models.layers.resnet import ResnetBlock2D, Upsample2D
from fdiff.models.layers.unet_2d_blocks import DownBlock2D, MakeAttention, MakeResnet, UNetMidBlock2D

EPS = 1e-6  # of every norm in an autoencoder
DownBlock = Annotated[str, OneOf(("DownEncoderBlock2D", "AttnDownEncoderBlock2D"))]
UpBlock = Annotated[str, OneOf(("UpDecoderBlock2D", "AttnUpDecoderBlock2D"))]


class DiagonalGaussian(NamedTuple):
    """A normal distribution for every number of pictures or videos: mean and log of the variance, (b, ..., h, w, c)."""

    mean: jax.Array
    logvar: jax.Array

    @property
    def std(self) -> jax.Array:
        """The standard deviation."""
        return jnp.exp(0.5 * self.logvar)

    def mode(self) -> jax.Array:
        """The mean, which is the most probable picture."""
        return self.mean

    def sample(self, key: jax.Array) -> jax.Array:
        """mean + std * noise; one key for all pictures, or (b,) keys, one a picture."""
        if (key := keys.typed(key)).ndim == 0:
            key = jax.vmap(keys.fold_in, (None, 0))(key, jnp.arange(len(self.mean)))
        noise = jax.vmap(lambda one: keys.normal(one, self.mean.shape[1:]))(key)
        return self.mean + self.std * noise.astype(self.mean.dtype)

    def kl(self) -> jax.Array:
        """Kullback-Leibler divergence from the standard normal distribution, (b,) in nats."""
        terms = jnp.square(self.mean) + jnp.exp(self.logvar) - 1 - self.logvar
        return 0.5 * terms.sum(tuple(range(1, terms.ndim)))


def diagonal_gaussian(moments: jax.Array) -> DiagonalGaussian:
    """The distribution whose mean and log variance are the two halves of the channels of (b, h, w, 2 c)."""
    mean, logvar = jnp.split(moments, 2, axis=-1)
    return DiagonalGaussian(mean, jnp.clip(logvar, -30.0, 20.0))


class Encoder(nn.Module):
    """A picture to half its size for every block but the last: (b, h, w, c) -> (b, h / f, w / f, out)."""

    out_channels: int
    block_types: tuple[str, ...]
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    act_fn: str
    norm_num_groups: int
    mid_block_add_attention: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        resnet = make_resnet(self.norm_num_groups, self.act_fn)
        x = Conv(self.block_out_channels[0], name="conv_in")(x)
        for i, (kind, channels) in enumerate(zip(self.block_types, self.block_out_channels, strict=True)):
            block = DownBlock2D(
                channels,
                self.layers_per_block,
                resnet,
                make_attention(channels, self.norm_num_groups) if "Attn" in kind else None,
                "conv" if i < len(self.block_out_channels) - 1 else None,
                padding=0,
                name=f"down_blocks.{i}",
            )
            x, _ = block(x, None)
        channels = self.block_out_channels[-1]
        attention = make_attention(channels, self.norm_num_groups) if self.mid_block_add_attention else None
        x = UNetMidBlock2D(channels, resnet, attention, name="mid_block")(x, None)
        x = nn.silu(GroupNorm(self.norm_num_groups, EPS, name="conv_norm_out")(x))
        return Conv(self.out_channels, name="conv_out")(x)


class Decoder(nn.Module):
    """A picture to twice its size for every block but the last: (b, h, w, c) -> (b, h f, w f, out).

    Where a picture z is given, every norm is scaled and shifted by it (Zheng et al. 2022). An image (b, h f, w f, c)
    and its mask (b, h f, w f, 1), 1 where it is painted anew, are seen by every block (Zhu et al. 2023).
    """

    out_channels: int
    block_types: tuple[str, ...]
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    act_fn: str
    norm_num_groups: int
    mid_block_add_attention: bool

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        z: jax.Array | None = None,
        image: jax.Array | None = None,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        groups = self.norm_num_groups if z is None else None
        resnet = make_resnet(self.norm_num_groups, self.act_fn, "default" if z is None else "spatial")
        channels = self.block_out_channels[-1]
        x = Conv(channels, name="conv_in")(x)
        attention = make_attention(channels, groups) if self.mid_block_add_attention else None
        x = UNetMidBlock2D(channels, resnet, attention, name="mid_block")(x, z, None, None, z)
        seen = None
        if image is not None and mask is not None:
            encoder = MaskConditionEncoder(self.block_out_channels[0], channels, name="condition_encoder")
            seen = encoder((1 - mask) * image), mask
        for i, kind in enumerate(self.block_types):
            channels = self.block_out_channels[-1 - i]
            attention = make_attention(channels, groups) if "Attn" in kind else None
            more = i < len(self.block_out_channels) - 1
            block = UpDecoderBlock2D(
                channels, self.layers_per_block + 1, resnet, attention, more, name=f"up_blocks.{i}"
            )
            x = block(surrounded(x, seen), z)
        x = surrounded(x, seen)
        if z is None:
            x = GroupNorm(self.norm_num_groups, EPS, name="conv_norm_out")(x)
        else:
            x = SpatialNorm(name="conv_norm_out")(x, z)
        return Conv(self.out_channels, name="conv_out")(nn.silu(x))


class MaskConditionEncoder(nn.Module):
    """A picture (b, h, w, c) at each size that a decoder of four blocks has, from the whole to an eighth."""

    first: int
    last: int

    @nn.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        pictures = []
        for i, channels in enumerate([min(self.first * 2**i, self.last) for i in range(4)] + [self.last]):
            layer = Conv(channels, 3 if i < 2 else 4, 1 if i < 2 else 2, name=f"layers.{i}")
            pictures.append(layer(x))
            x = nn.relu(pictures[-1])
        return pictures


def surrounded(x: jax.Array, seen: tuple[list[jax.Array], jax.Array] | None) -> jax.Array:
    """x (b, h, w, c) where a mask is 1, and where it is 0 what is seen of a picture at that size."""
    if seen is None:
        return x
    pictures, mask = seen
    fitting = [picture for picture in pictures if picture.shape[1:] == x.shape[1:]]
    if not fitting:
        raise ValueError(
            f"A decoder whose blocks have pictures {x.shape[1:]} does not see the picture around a mask; it needs four "
            "blocks, and a picture and a mask of the size that it decodes to."
        )
    rows, columns = (np.arange(n) * whole // n for n, whole in zip(x.shape[1:3], mask.shape[1:3], strict=True))
    mask = mask[:, rows][:, :, columns]
    return x * mask + fitting[-1] * (1 - mask)


class UpDecoderBlock2D(nn.Module):
    """Residual blocks, each with attention if asked for, then a layer that doubles the size."""

    channels: int
    num_layers: int
    resnet: MakeResnet
    attention: MakeAttention | None = None
    upsample: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, z: jax.Array | None = None) -> jax.Array:
        for i in range(self.num_layers):
            x = self.resnet(self.channels, name=f"resnets.{i}")(x, z)
            if self.attention is not None:
                x = self.attention(name=f"attentions.{i}")(x, None, None, z)
        return Upsample2D(self.channels, name="upsamplers.0")(x) if self.upsample else x


class Quantized(NamedTuple):
    """What a vector quantizer returns.

    latents (b, h, w, c): the nearest vectors, with the gradient of what they replace;
    loss: how far the two are apart, to be added to a training loss;
    indices (b, h, w): their numbers.
    """

    latents: jax.Array
    loss: jax.Array
    indices: jax.Array


class VectorQuantizer(nn.Module):
    """Replace each vector of a picture by the nearest one of a table (van den Oord et al. 2017)."""

    num_embeddings: int
    features: int
    beta: float = 0.25

    def setup(self) -> None:
        """Make the table."""
        self.embedding = Embed(self.num_embeddings, self.features)

    def __call__(self, z: jax.Array) -> Quantized:
        """The nearest vectors of z (b, h, w, c)."""
        table = self.embedding(jnp.arange(self.num_embeddings)).astype(jnp.float32)
        wide = z.astype(jnp.float32)
        # |z - e|^2 without |z|^2, which is the same for every e.
        distances = jnp.square(table).sum(-1) - 2 * jnp.einsum("bhwc,nc->bhwn", wide, table)
        indices = distances.argmin(-1)
        nearest = self.lookup(indices).astype(z.dtype)
        stop = jax.lax.stop_gradient
        loss = jnp.square(stop(nearest) - z).mean() + self.beta * jnp.square(nearest - stop(z)).mean()
        return Quantized(z + stop(nearest - z), loss, indices)

    def lookup(self, indices: jax.Array) -> jax.Array:
        """The vectors with these numbers: (b, h, w) -> (b, h, w, c)."""
        return self.embedding(indices)


def make_resnet(groups: int, act_fn: str, norm: str = "default") -> MakeResnet:
    """ResnetBlock2D as autoencoders have it."""
    return functools.partial(ResnetBlock2D, groups=groups, eps=EPS, non_linearity=act_fn, time_embedding_norm=norm)


def make_attention(channels: int, groups: int | None) -> MakeAttention:
    """Attention as autoencoders have it: one head."""
    return functools.partial(
        Attention,
        heads=1,
        dim_head=channels,
        bias=True,
        eps=EPS,
        norm_num_groups=groups,
        residual_connection=True,
    )
