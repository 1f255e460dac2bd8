"""AsymmetricAutoencoderKL: an autoencoder whose decoder sees the picture around what is painted anew."""

from typing import Any, ClassVar

import jax
import numpy as np

from fdiff.models.autoencoder_kl import KLAutoencoder
from fdiff.models.fields import Factor, Layers, Widths
from fdiff.models.layers.checks import check_halves, require
from fdiff.models.layers.linear import Conv
from fdiff.models.layers.vae import Decoder, Encoder


class AsymmetricAutoencoderKL(KLAutoencoder):
    """An AutoencoderKL with a larger decoder, for inpainting (Zhu et al. 2023).

    encode is that of AutoencoderKL. decode: latents (b, h, w, c) and, if given, the pictures (1 or b, 8 h, 8 w, c) in
    [-1, 1] and their masks (1 or b, 8 h, 8 w, 1), 1 where they are painted anew -> pictures that are the given ones
    where the mask is 0, but for what the network needs to make both fit. With a mask, the decoder has four blocks.
    """

    ignored_keys = ("block_out_channels", "force_upcast")  # which diffusers adds to the config

    down_block_out_channels: Widths = (64,)
    layers_per_down_block: Layers = 1
    up_block_out_channels: Widths = (64,)
    layers_per_up_block: Layers = 1
    scaling_factor: Factor = 0.18215

    # Options that only AutoencoderKL has.
    shift_factor: ClassVar[None] = None
    latents_mean: ClassVar[None] = None
    latents_std: ClassVar[None] = None
    force_upcast: ClassVar[bool] = False
    use_quant_conv: ClassVar[bool] = True
    use_post_quant_conv: ClassVar[bool] = True

    def setup(self) -> None:
        """Make the two halves."""
        self.check_options()
        common = self.act_fn, self.norm_num_groups, True
        down, up = self.down_block_out_channels, self.up_block_out_channels
        latents = 2 * self.latent_channels
        self.encoder = Encoder(latents, self.down_block_types, down, self.layers_per_down_block, *common)
        self.decoder = Decoder(self.out_channels, self.up_block_types, up, self.layers_per_up_block, *common)
        self.quant_conv = Conv(2 * self.latent_channels, 1, padding=0)
        self.post_quant_conv = Conv(self.latent_channels, 1, padding=0)

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        down = "down_block_out_channels", "layers_per_down_block"
        check_halves(self, down, ("up_block_out_channels", "layers_per_up_block"))
        widths = self.up_block_out_channels  # what the decoder sees of a picture has these channels too
        seen = tuple(min(widths[0] * 2**i, widths[-1]) for i in range(4))
        good = widths == seen and 8 * widths[0] >= widths[-1]
        require(good, f"up_block_out_channels {widths} must be four, each twice the former up to the last.")

    def __call__(self, sample: jax.Array, mask: jax.Array | None = None, key: jax.Array | None = None) -> jax.Array:
        """Encode and decode: with the mode of the distribution, or a sample of it where a key is given."""
        posterior = self.encode(sample)
        return self.decode(posterior.mode() if key is None else posterior.sample(key), sample, mask)

    def decode(self, latents: jax.Array, image: jax.Array | None = None, mask: jax.Array | None = None) -> jax.Array:
        """The pictures of latents; around what the mask paints anew, those of `image`."""
        return self.decoder(self.received(latents), None, image, mask)

    @property
    def block_out_channels(self) -> tuple[int, ...]:
        """The channels of the larger half, as diffusers has it."""
        return self.up_block_out_channels

    def example_inputs(self) -> tuple[Any, ...]:
        """One picture of one latent, and its mask."""
        size = 2 ** (len(self.up_block_out_channels) - 1)
        return np.zeros((1, size, size, self.in_channels), np.float32), np.zeros((1, size, size, 1), np.float32)
