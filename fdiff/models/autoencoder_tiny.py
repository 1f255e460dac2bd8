"""AutoencoderTiny: a small, fast substitute for AutoencoderKL (TAESD)."""

from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Activation, Channels, Factor, Layers, OneOf, Shift, Widths, between, some
from fdiff.models.layers.activations import activation
from fdiff.models.layers.checks import check_layers, require
from fdiff.models.layers.convolve import upsample
from fdiff.models.layers.linear import Conv
from fdiff.models.model import Model


class AutoencoderTiny(Model):
    """A distilled autoencoder without norms or randomness (TAESD, github.com/madebyollin/taesd).

    encode: pictures (b, h, w, in_channels) in [-1, 1] -> latents (b, h / 8, w / 8, latent_channels)
    decode: the inverse

    Its latents are those that a denoiser takes: `scale` and `unscale` change them by the scaling factor only,
    which is 1. As in all checkpoints, force_upcast is not needed.
    """

    ignored_keys = ("block_out_channels",)

    in_channels: Channels = 3
    out_channels: Channels = 3
    encoder_block_out_channels: Widths = (64, 64, 64, 64)
    decoder_block_out_channels: Widths = (64, 64, 64, 64)
    act_fn: Activation = "relu"
    upsample_fn: Annotated[str, OneOf(("nearest",))] = "nearest"
    latent_channels: Channels = 4
    upsampling_scaling_factor: Annotated[int, between(1, 8)] = 2
    num_encoder_blocks: Annotated[tuple[Layers, ...], some(8)] = (1, 3, 3, 3)
    num_decoder_blocks: Annotated[tuple[Layers, ...], some(8)] = (3, 3, 3, 1)
    latent_magnitude: Factor = 3
    latent_shift: Shift = 0.5
    force_upcast: bool = False
    scaling_factor: Factor = 1.0
    shift_factor: Shift = 0.0

    def setup(self) -> None:
        """Make the two halves."""
        self.check_options()
        self.encoder = EncoderTiny(
            self.latent_channels, self.num_encoder_blocks, self.encoder_block_out_channels, self.act_fn
        )
        self.decoder = DecoderTiny(
            self.out_channels,
            self.num_decoder_blocks,
            self.decoder_block_out_channels,
            self.act_fn,
            self.upsampling_scaling_factor,
        )

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        for half in ("encoder", "decoder"):
            blocks, widths = f"num_{half}_blocks", f"{half}_block_out_channels"
            good = len(getattr(self, blocks)) == len(getattr(self, widths))
            require(good, f"{blocks} and {widths} must be equally long.")
            check_layers(blocks, sum(getattr(self, blocks)))

    def __call__(self, sample: jax.Array) -> jax.Array:
        """Encode, round the latents to what a byte can hold, and decode."""
        low, high = -2 * self.latent_magnitude * self.latent_shift, 2 * self.latent_magnitude
        share = jnp.clip((self.encode(sample) - low) / high, 0, 1)
        return self.decode((jnp.round(share * 255) / 255 * high + low).astype(share.dtype))

    def encode(self, sample: jax.Array) -> jax.Array:
        """The latents of pictures."""
        return self.encoder(sample)

    def decode(self, latents: jax.Array) -> jax.Array:
        """The pictures of latents."""
        return self.decoder(latents)

    def scale(self, latents: jax.Array) -> jax.Array:
        """What `encode` gives -> what a denoiser takes."""
        return (latents - self.shift_factor) * self.scaling_factor

    def unscale(self, latents: jax.Array) -> jax.Array:
        """The inverse of `scale`."""
        return latents / self.scaling_factor + self.shift_factor

    def example_inputs(self) -> tuple[np.ndarray]:
        """One picture of one latent."""
        size = 2 ** (len(self.num_encoder_blocks) - 1)
        return (np.zeros((1, size, size, self.in_channels), np.float32),)


class EncoderTiny(nn.Module):
    """A chain of convolutions and residual blocks, numbered in the checkpoint as torch's Sequential does."""

    out_channels: int
    num_blocks: tuple[int, ...]
    block_out_channels: tuple[int, ...]
    act_fn: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = (x + 1) / 2
        layer = 0
        for i, (blocks, channels) in enumerate(zip(self.num_blocks, self.block_out_channels, strict=True)):
            if i == 0:
                x = Conv(channels, name="layers.0")(x)
            else:
                x = Conv(channels, stride=2, use_bias=False, name=f"layers.{layer}")(x)
            for k in range(blocks):
                x = AutoencoderTinyBlock(channels, self.act_fn, name=f"layers.{layer + 1 + k}")(x)
            layer += 1 + blocks
        return Conv(self.out_channels, name=f"layers.{layer}")(x)


class DecoderTiny(nn.Module):
    """The reverse of the encoder; layer 1 of the checkpoint is an activation, and some are upsampling."""

    out_channels: int
    num_blocks: tuple[int, ...]
    block_out_channels: tuple[int, ...]
    act_fn: str
    factor: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = jnp.tanh(x / 3) * 3
        x = activation(self.act_fn)(Conv(self.block_out_channels[0], name="layers.0")(x))
        layer = 2
        for i, (blocks, channels) in enumerate(zip(self.num_blocks, self.block_out_channels, strict=True)):
            for k in range(blocks):
                x = AutoencoderTinyBlock(channels, self.act_fn, name=f"layers.{layer + k}")(x)
            layer += blocks
            if i < len(self.num_blocks) - 1:
                x = upsample(x, (self.factor * x.shape[1], self.factor * x.shape[2]))
                x = Conv(channels, use_bias=False, name=f"layers.{layer + 1}")(x)
                layer += 2
            else:
                x = Conv(self.out_channels, name=f"layers.{layer}")(x)
        return 2 * x - 1


class AutoencoderTinyBlock(nn.Module):
    """Three convolutions with activations between, plus the input, through a ReLU."""

    channels: int
    act_fn: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        act, residual = activation(self.act_fn), x
        x = act(Conv(self.channels, name="conv.0")(x))
        x = act(Conv(self.channels, name="conv.2")(x))
        x = Conv(self.channels, name="conv.4")(x)
        if residual.shape[-1] != self.channels:
            residual = Conv(self.channels, 1, padding=0, use_bias=False, name="skip")(residual)
        return nn.relu(x + residual)
