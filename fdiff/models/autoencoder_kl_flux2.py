"""AutoencoderKLFlux2: pictures to the latents of FLUX.2, and back."""

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.autoencoder_kl import KLAutoencoder, halves
from fdiff.models.fields import Channels, Epsilon, Layers, Pixels, Widths, between
from fdiff.models.layers.checks import check_halves, require
from fdiff.models.layers.linear import Conv
from fdiff.models.layers.parameter import parameter
from fdiff.models.layers.vae import DownBlock, UpBlock

Patch = Annotated[int, between(1, 64)]


class AutoencoderKLFlux2(KLAutoencoder):
    """An AutoencoderKL whose checkpoint holds the mean and the variance of its latents (Black Forest Labs 2025).

    encode and decode are those of AutoencoderKL, latents being (b, h / 8, w / 8, latent_channels). `scale` and
    `unscale` read parameters here: a denoiser takes squares of latents, (b, h / 16, w / 16, 4 latent_channels), with
    mean 0 and variance 1.

        latents = vae.apply({"params": params}, posterior.mode(), method="scale")
    """

    down_block_types: tuple[DownBlock, ...] = ("DownEncoderBlock2D",) * 4
    up_block_types: tuple[UpBlock, ...] = ("UpDecoderBlock2D",) * 4
    block_out_channels: Widths = (128, 256, 512, 512)
    decoder_block_out_channels: Widths | None = None
    layers_per_block: Layers = 2
    latent_channels: Channels = 32
    sample_size: Pixels | tuple[Pixels, Pixels] = 1024
    force_upcast: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True
    batch_norm_eps: Epsilon = 1e-4
    batch_norm_momentum: Epsilon = 0.1  # of its training
    patch_size: tuple[Patch, Patch] = (2, 2)

    def setup(self) -> None:
        """Make the two halves."""
        self.check_options()
        self.encoder, self.decoder = halves(self, self.decoder_block_out_channels or self.block_out_channels)
        if self.use_quant_conv:
            self.quant_conv = Conv(2 * self.latent_channels, 1, padding=0)
        if self.use_post_quant_conv:
            self.post_quant_conv = Conv(self.latent_channels, 1, padding=0)
        self.bn = Statistics(self.patch_size[0] * self.patch_size[1] * self.latent_channels)

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        own = "block_out_channels" if self.decoder_block_out_channels is None else "decoder_block_out_channels"
        check_halves(self, up=(own, "layers_per_block"))
        if self.decoder_block_out_channels is not None:
            good = len(self.decoder_block_out_channels) == len(self.block_out_channels)
            require(good, "decoder_block_out_channels must be as long as block_out_channels.")

    def __call__(self, sample: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Encode and decode: with the mode of the distribution, or a sample of it where a key is given."""
        posterior = self.encode(sample)
        if self.is_initializing():
            self.bn()
        return self.decode(posterior.mode() if key is None else posterior.sample(key))

    def decode(self, latents: jax.Array) -> jax.Array:
        """The pictures of latents."""
        return self.decoder(self.received(latents))

    def scale(self, latents: jax.Array) -> jax.Array:
        """What `encode` gives -> what a denoiser takes: (b, h, w, c) -> (b, h / 2, w / 2, 4 c), channels outermost."""
        rows, columns = self.patch_size
        batch, height, width, channels = latents.shape
        if height % rows or width % columns:
            raise ValueError(
                f"Latents of {height} x {width} cannot be put together {rows} x {columns} at a time; "
                f"choose a picture whose sides {8 * rows} divides."
            )
        x = latents.reshape(batch, height // rows, rows, width // columns, columns, channels)
        x = x.transpose(0, 1, 3, 5, 2, 4).reshape(batch, height // rows, width // columns, -1)
        mean, variance = self.bn()
        return (x - mean) / jnp.sqrt(variance + self.batch_norm_eps)

    def unscale(self, latents: jax.Array) -> jax.Array:
        """The inverse of `scale`."""
        rows, columns = self.patch_size
        batch, height, width, _ = latents.shape
        mean, variance = self.bn()
        x = latents * jnp.sqrt(variance + self.batch_norm_eps) + mean
        x = x.reshape(batch, height, width, -1, rows, columns).transpose(0, 1, 4, 2, 5, 3)
        return x.reshape(batch, height * rows, width * columns, -1)

    def example_inputs(self) -> tuple[Any, ...]:
        """One picture of one latent."""
        size = 2 ** (len(self.block_out_channels) - 1)
        return (np.zeros((1, size, size, self.in_channels), np.float32),)


class Statistics(nn.Module):
    """A mean and a variance for each channel, as the checkpoint has them: two arrays (features,)."""

    features: int

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        mean = parameter(self, "running_mean", nn.initializers.zeros, (self.features,))
        return mean, parameter(self, "running_var", nn.initializers.ones, (self.features,))
