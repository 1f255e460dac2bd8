"""VQModel: an autoencoder whose latents come from a table of vectors."""

from typing import Annotated

import jax
import numpy as np

from fdiff.models.fields import Activation, Channels, Count, Factor, Layers, OneOf, Pixels, Widths
from fdiff.models.layers.checks import check_groups, check_halves
from fdiff.models.layers.linear import Conv
from fdiff.models.layers.vae import Decoder, DownBlock, Encoder, UpBlock, VectorQuantizer
from fdiff.models.model import Model


class VQModel(Model):
    """An autoencoder that replaces every latent by the nearest vector of a table (van den Oord et al. 2017).

    encode: pictures (b, h, w, in_channels) in [-1, 1] -> latents (b, h / f, w / f, c), not yet replaced
    decode: latents -> pictures; it replaces them first, unless told not to

    The quantizer is `model.quantize`: latents -> Quantized(latents, loss, indices), and back from the indices
    with `model.quantize.lookup`; inside `apply`, say

        vqvae.apply({"params": params}, h, method=lambda model, h: model.quantize(h))
    """

    in_channels: Channels = 3
    out_channels: Channels = 3
    down_block_types: tuple[DownBlock, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[UpBlock, ...] = ("UpDecoderBlock2D",)
    block_out_channels: Widths = (64,)
    layers_per_block: Layers = 1
    act_fn: Activation = "silu"
    latent_channels: Channels = 3
    sample_size: Pixels | tuple[Pixels, Pixels] = 32
    num_vq_embeddings: Count = 256
    norm_num_groups: Count = 32
    vq_embed_dim: Count | None = None
    scaling_factor: Factor = 0.18215
    norm_type: Annotated[str, OneOf(("group", "spatial"))] = "group"
    mid_block_add_attention: bool = True
    lookup_from_codebook: bool = False
    force_upcast: bool = False

    def setup(self) -> None:
        """Make the two halves and the table."""
        self.check_options()
        features = self.vq_embed_dim or self.latent_channels
        self.encoder = Encoder(
            self.latent_channels,
            self.down_block_types,
            self.block_out_channels,
            self.layers_per_block,
            self.act_fn,
            self.norm_num_groups,
            self.mid_block_add_attention,
        )
        self.quant_conv = Conv(features, 1, padding=0)
        self.quantize = VectorQuantizer(self.num_vq_embeddings, features)
        self.post_quant_conv = Conv(self.latent_channels, 1, padding=0)
        self.decoder = Decoder(
            self.out_channels,
            self.up_block_types,
            self.block_out_channels,
            self.layers_per_block,
            self.act_fn,
            self.norm_num_groups,
            self.mid_block_add_attention,
        )

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        check_halves(self)
        if self.norm_type == "spatial":
            check_groups("norm_type 'spatial'", 32, self.block_out_channels)

    def __call__(self, sample: jax.Array) -> jax.Array:
        """Encode, quantize and decode."""
        return self.decode(self.encode(sample))

    def encode(self, sample: jax.Array) -> jax.Array:
        """The latents of pictures, before the quantizer."""
        return self.quant_conv(self.encoder(sample))

    def decode(self, latents: jax.Array, force_not_quantize: bool = False) -> jax.Array:
        """The pictures of latents.

        With force_not_quantize, they are taken as they are, or, if the model says lookup_from_codebook, they
        are the indices (b, h, w) of vectors.
        """
        if not force_not_quantize:
            latents = self.quantize(latents).latents
        elif self.lookup_from_codebook:
            latents = self.quantize.lookup(latents)
        z = latents if self.norm_type == "spatial" else None
        return self.decoder(self.post_quant_conv(latents), z)

    def scale(self, latents: jax.Array) -> jax.Array:
        """What `encode` gives -> what a denoiser takes."""
        return latents * self.scaling_factor

    def unscale(self, latents: jax.Array) -> jax.Array:
        """The inverse of `scale`."""
        return latents / self.scaling_factor

    def example_inputs(self) -> tuple[np.ndarray]:
        """One picture of one latent."""
        size = 2 ** (len(self.block_out_channels) - 1)
        return (np.zeros((1, size, size, self.in_channels), np.float32),)
