"""AutoencoderKL: pictures to the latents of Stable Diffusion, SDXL, SD3 and FLUX, and back."""

import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Activation, Channels, Count, Factor, Layers, Pixels, Shift, Widths
from fdiff.models.layers.checks import check_halves, require
from fdiff.models.layers.linear import Conv
from fdiff.models.layers.vae import Decoder, DiagonalGaussian, DownBlock, Encoder, UpBlock, diagonal_gaussian
from fdiff.models.model import Model


class KLAutoencoder(Model):
    """What autoencoders with normally distributed latents share: what goes in, and the scale of what comes out."""

    in_channels: Channels = 3
    out_channels: Channels = 3
    down_block_types: tuple[DownBlock, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[UpBlock, ...] = ("UpDecoderBlock2D",)
    act_fn: Activation = "silu"
    latent_channels: Channels = 4
    norm_num_groups: Count = 32
    sample_size: Pixels | tuple[Pixels, Pixels] = 32

    def encode(self, sample: jax.Array) -> DiagonalGaussian:
        """The distribution of the latents of pictures."""
        return diagonal_gaussian(self.moments(sample))

    def moments(self, sample: jax.Array) -> jax.Array:
        """Mean and log variance of the latents in one array (b, h / f, w / f, 2 latent_channels)."""
        if sample.ndim != 4 or sample.shape[-1] != self.in_channels:
            raise ValueError(f"Pictures must be (batch, height, width, {self.in_channels}); they are {sample.shape}.")
        moments = self.encoder(sample)
        return self.quant_conv(moments) if self.use_quant_conv else moments

    def received(self, latents: jax.Array) -> jax.Array:
        """What the decoder is given of latents."""
        if latents.ndim != 4 or latents.shape[-1] != self.latent_channels:
            raise ValueError(
                f"Latents must be (batch, height, width, {self.latent_channels}); they are {latents.shape}."
            )
        return self.post_quant_conv(latents) if self.use_post_quant_conv else latents

    def scale(self, latents: jax.Array) -> jax.Array:
        """What `encode` gives -> what a denoiser takes: (z - shift) * scaling_factor."""
        if self.latents_mean is not None and self.latents_std is not None:
            mean, std = (jnp.asarray(one, latents.dtype) for one in (self.latents_mean, self.latents_std))
            latents = (latents - mean) / std
        return (latents - (self.shift_factor or 0.0)) * self.scaling_factor

    def unscale(self, latents: jax.Array) -> jax.Array:
        """The inverse of `scale`."""
        latents = latents / self.scaling_factor + (self.shift_factor or 0.0)
        if self.latents_mean is not None and self.latents_std is not None:
            mean, std = (jnp.asarray(one, latents.dtype) for one in (self.latents_mean, self.latents_std))
            latents = latents * std + mean
        return latents


class AutoencoderKL(KLAutoencoder):
    """An autoencoder whose latents are normally distributed (Kingma and Welling 2013, Rombach et al. 2022).

    encode: pictures (b, h, w, in_channels) in [-1, 1] -> DiagonalGaussian of latents (b, h / f, w / f, c)
    decode: latents (b, h, w, c) -> pictures (b, h f, w f, out_channels)

    c is latent_channels and f is 2^(blocks - 1). Latents are `scale`d before a denoiser sees them and
    `unscale`d before `decode`.

        vae, params = AutoencoderKL.from_pretrained("stabilityai/sd-vae-ft-mse")
        latents = vae.apply({"params": params}, picture, method="encode").sample(key)
        picture = vae.apply({"params": params}, latents, method="decode")

    `force_upcast` says that float16 is too narrow for this autoencoder; pipelines then load it in float32.
    """

    block_out_channels: Widths = (64,)
    layers_per_block: Layers = 1
    scaling_factor: Factor = 0.18215
    shift_factor: Shift | None = None
    latents_mean: tuple[Shift, ...] | None = None
    latents_std: tuple[Factor, ...] | None = None
    force_upcast: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    def setup(self) -> None:
        """Make the two halves."""
        self.check_options()
        self.encoder, self.decoder = halves(self, self.block_out_channels)
        if self.use_quant_conv:
            self.quant_conv = Conv(2 * self.latent_channels, 1, padding=0)
        if self.use_post_quant_conv:
            self.post_quant_conv = Conv(self.latent_channels, 1, padding=0)

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        check_halves(self)
        for option in ("latents_mean", "latents_std"):
            numbers = getattr(self, option)
            good = numbers is None or len(numbers) == self.latent_channels
            require(good, f"{option} must hold a number for each of {self.latent_channels} latent_channels.")

    def __call__(self, sample: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Encode and decode: with the mode of the distribution, or a sample of it where a key is given."""
        posterior = self.encode(sample)
        return self.decode(posterior.mode() if key is None else posterior.sample(key))

    def decode(self, latents: jax.Array) -> jax.Array:
        """The pictures of latents."""
        return self.decoder(self.received(latents))

    def example_inputs(self) -> tuple[np.ndarray]:
        """One picture of one latent."""
        size = 2 ** (len(self.block_out_channels) - 1)
        return (np.zeros((1, size, size, self.in_channels), np.float32),)


def halves(model: KLAutoencoder, decoder_channels: tuple[int, ...]) -> tuple[Encoder, Decoder]:
    """The encoder and the decoder that the options of a model describe."""
    common = model.layers_per_block, model.act_fn, model.norm_num_groups, model.mid_block_add_attention
    encoder = Encoder(2 * model.latent_channels, model.down_block_types, model.block_out_channels, *common)
    return encoder, Decoder(model.out_channels, model.up_block_types, decoder_channels, *common)
