"""AutoencoderKLWan and AutoencoderKLQwenImage: videos, and pictures, to the latents of Wan and of Qwen-Image, and back.
"""

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Channels, Count, Dropout, Factor, Layers, Shift, between, some
from fdiff.models.layers.checks import require
from fdiff.models.layers.vae import DiagonalGaussian, diagonal_gaussian
from fdiff.models.layers.wan_vae import CausalConv, Decoder, Encoder
from fdiff.models.model import Model

Multiple = Annotated[int, between(1, 64)]
MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632, -0.1922,
    -0.9497, 0.2503, -0.2921,
)  # fmt: skip
STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253,
    2.8251, 1.9160,
)  # fmt: skip
TILE = 256  # pixels, where a size of tiles is not given


class StandardizedAutoencoder(Model):
    """An autoencoder whose latents a denoiser takes with mean 0 and deviation 1 in each channel; no Hub class."""

    z_dim: Channels = 16
    latents_mean: tuple[Shift, ...] = MEAN
    latents_std: tuple[Factor, ...] = STD
    dim_mult: Annotated[tuple[Multiple, ...], some(8)] = (1, 2, 4, 4)
    temperal_downsample: Annotated[tuple[bool, ...], some(8)] = (False, True, True)

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        levels = len(self.dim_mult)
        good = len(self.temperal_downsample) == levels - 1
        require(good, f"temperal_downsample must be one shorter than dim_mult, which has {levels} numbers.")
        for option in ("latents_mean", "latents_std"):
            good = len(getattr(self, option)) == self.z_dim
            require(good, f"{option} must hold a number for each channel, of which z_dim says {self.z_dim}.")

    def __call__(self, sample: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Encode and decode: with the mode of the distribution, or a sample of it where a key is given."""
        posterior = self.encode(sample)
        return self.decode(posterior.mode() if key is None else posterior.sample(key))

    def encode(self, sample: jax.Array) -> DiagonalGaussian:
        """The distribution of the latents."""
        raise NotImplementedError

    def decode(self, latents: jax.Array) -> jax.Array:
        """What latents stand for."""
        raise NotImplementedError

    def scale(self, latents: jax.Array) -> jax.Array:
        """What `encode` gives -> what a denoiser takes: (z - latents_mean) / latents_std."""
        mean, std = (jnp.asarray(one, latents.dtype) for one in (self.latents_mean, self.latents_std))
        return (latents - mean) / std

    def unscale(self, latents: jax.Array) -> jax.Array:
        """The inverse of `scale`."""
        mean, std = (jnp.asarray(one, latents.dtype) for one in (self.latents_mean, self.latents_std))
        return latents * std + mean


class WanAutoencoder(StandardizedAutoencoder):
    """An autoencoder that is causal in time (Wan Team 2025).

    encode: videos (b, 1 + k n, h, w, c) in [-1, 1], or pictures (b, h, w, c) -> DiagonalGaussian of latents (b, 1 + n,
    h / f, w / f, z_dim), or (b, h / f, w / f, z_dim); decode: the inverse, in [-1, 1]. f is 2^(levels - 1), k is 2 for
    each true in temperal_downsample, multiplied. Latents are `scale`d before a denoiser sees them and `unscale`d before
    `decode`. Long videos go part by part: see `fdiff.models.tiling`.

        latents = vae.apply({"params": params}, video, method="encode").mode()
    """

    base_dim: Count = 96
    num_res_blocks: Layers = 2
    attn_scales: tuple[Factor, ...] = ()
    dropout: Dropout = 0.0  # of its training

    def setup(self) -> None:
        """Make the two halves."""
        self.check_options()
        first, last = self.base_dim, self.decoder_width()
        widths, layers = tuple(first * factor for factor in self.dim_mult), self.num_res_blocks
        self.encoder = Encoder(2 * self.z_dim, first, widths, layers, self.temperal_downsample)
        self.quant_conv = CausalConv(2 * self.z_dim, (1, 1))
        self.post_quant_conv = CausalConv(self.z_dim, (1, 1))
        widths = tuple(last * factor for factor in self.dim_mult[::-1])
        self.decoder = Decoder(self.channels()[1], widths, layers + 1, self.temperal_downsample[::-1])

    def channels(self) -> tuple[int, int]:
        """Of what is encoded, and of what is decoded."""
        raise NotImplementedError

    def decoder_width(self) -> int:
        """What base_dim is to the decoder."""
        return self.base_dim

    def check_options(self) -> None:
        """Refuse options that no such network has, or that do not fit together."""
        require(not self.attn_scales, f"attn_scales {self.attn_scales} must be empty: there is no such network.")
        super().check_options()
        odd = [width for width in (self.decoder_width() * factor for factor in self.dim_mult[1:]) if width % 2]
        require(not odd, f"{odd} channels of the decoder cannot be halved; choose an even base_dim.")

    def encode(self, sample: jax.Array) -> DiagonalGaussian:
        """The distribution of the latents of videos or pictures."""
        return diagonal_gaussian(self.moments(sample))

    def moments(self, sample: jax.Array) -> jax.Array:
        """Mean and log variance of the latents in one array."""
        factor, in_time, channels = 2 ** (len(self.dim_mult) - 1), self.frames_of_latent, self.channels()[0]
        shape = sample.shape
        if len(shape) not in (4, 5) or shape[-1] != channels or shape[-3] % factor or shape[-2] % factor:
            raise ValueError(f"Videos must be (batch, frames, height, width, {channels}), pictures without frames, "
                             f"height and width multiples of {factor}; they are {shape}.")
        begun = self.variables.get("cache")
        if len(shape) == 5 and (shape[1] % in_time if begun else (shape[1] - 1) % in_time):
            raise ValueError(f"A video of {shape[1]} frames must have one, or one and a multiple of {in_time}.")
        found = self.quant_conv(self.encoder(sample if len(shape) == 5 else sample[:, None]))
        return found if len(shape) == 5 else found[:, 0]

    def decode(self, latents: jax.Array) -> jax.Array:
        """The videos or pictures of latents."""
        if latents.ndim not in (4, 5) or latents.shape[-1] != self.z_dim:
            raise ValueError(f"Latents must be (batch, frames, height, width, {self.z_dim}), those of pictures without "
                             f"frames; they are {latents.shape}.")
        made = self.decoder(self.post_quant_conv(latents if latents.ndim == 5 else latents[:, None]))
        return jnp.clip(made if latents.ndim == 5 else made[:, 0], -1, 1)

    def example_inputs(self) -> tuple[Any, ...]:
        """One picture of one latent."""
        size = 2 ** (len(self.dim_mult) - 1)
        return (np.zeros((1, size, size, self.channels()[0]), np.float32),)

    @property
    def frames_of_latent(self) -> int:
        """How many frames a latent behind the first stands for."""
        return 2 ** sum(self.temperal_downsample)

    @property
    def latent_channels(self) -> int:
        """z_dim, by the name that pipelines know."""
        return self.z_dim

    @property
    def block_out_channels(self) -> tuple[int, ...]:
        """The channels of each level, by the name that pipelines know."""
        return tuple(self.base_dim * factor for factor in self.dim_mult)

    @property
    def sample_size(self) -> int:
        """The pixels of a tile."""
        return TILE


class AutoencoderKLWan(WanAutoencoder):
    """The autoencoder of Wan 2.1 (Wan Team 2025); see WanAutoencoder."""

    decoder_base_dim: Count | None = None
    is_residual: bool = False
    in_channels: Channels = 3
    out_channels: Channels = 3
    patch_size: Count | None = None
    scale_factor_temporal: Count | None = 4
    scale_factor_spatial: Count | None = 8

    def channels(self) -> tuple[int, int]:
        """in_channels and out_channels."""
        return self.in_channels, self.out_channels

    def decoder_width(self) -> int:
        """decoder_base_dim, or base_dim."""
        return self.decoder_base_dim or self.base_dim

    def check_options(self) -> None:
        """Refuse Wan 2.2's, too, whose blocks are others."""
        super().check_options()
        plain = not self.is_residual and self.patch_size is None
        require(plain, "is_residual must be false and patch_size null: Wan 2.2's 5B autoencoder is not there yet.")


class AutoencoderKLQwenImage(WanAutoencoder):
    """The autoencoder of Qwen-Image (Qwen Team 2025), which is Wan's with a decoder trained for pictures."""

    input_channels: Channels = 3

    def channels(self) -> tuple[int, int]:
        """input_channels, both."""
        return self.input_channels, self.input_channels

    @property
    def in_channels(self) -> int:
        """input_channels, by the name that pipelines know."""
        return self.input_channels
