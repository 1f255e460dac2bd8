"""AutoencoderOobleck: sounds to the latents of Stable Audio and ACE-Step, and back."""

import math
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Channels, Count, between, some
from fdiff.models.layers.checks import require
from fdiff.models.layers.oobleck import DILATIONS, OobleckDecoder, OobleckEncoder
from fdiff.models.model import Model

Ratios = Annotated[tuple[Annotated[int, between(1, 64)], ...], some(8)]


class SoundDistribution(NamedTuple):
    """A normal distribution for every number of the latents of a sound: mean and standard deviation, (b, n, c)."""

    mean: jax.Array
    std: jax.Array

    def mode(self) -> jax.Array:
        """The mean, which is the most probable."""
        return self.mean


class AutoencoderOobleck(Model):
    """An autoencoder of samples whose latents are normally distributed (Evans et al. 2024).

    encode: samples (b, n, audio_channels) in [-1, 1] -> SoundDistribution of latents (b, n / hop_length, c)
    decode: latents (b, m, c) -> samples (b, m hop_length, audio_channels)

    c is decoder_input_channels, and hop_length the product of the downsampling_ratios, which are even in what there is.

        vae, params = AutoencoderOobleck.from_pretrained("stabilityai/stable-audio-open-1.0", subfolder="vae")
        latents = vae.apply({"params": params}, samples, method="encode").mode()
        samples = vae.apply({"params": params}, latents, method="decode")
    """

    encoder_hidden_size: Count = 128
    downsampling_ratios: Ratios = (2, 4, 4, 8, 8)
    channel_multiples: Ratios = (1, 2, 4, 8, 16)
    decoder_channels: Count = 128
    decoder_input_channels: Count = 64
    audio_channels: Channels = 2
    sampling_rate: Count = 44100

    def setup(self) -> None:
        """Make the two halves."""
        self.check_options()
        shared = self.downsampling_ratios, self.channel_multiples
        self.encoder = OobleckEncoder(self.encoder_hidden_size, *shared)
        self.decoder = OobleckDecoder(self.audio_channels, self.decoder_channels, *shared)

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        equal = len(self.downsampling_ratios) == len(self.channel_multiples)
        require(equal, "downsampling_ratios and channel_multiples must be equally long.")
        good = self.encoder_hidden_size == 2 * self.decoder_input_channels
        require(good, f"encoder_hidden_size must be twice decoder_input_channels, {self.decoder_input_channels}.")

    @property
    def hop_length(self) -> int:
        """How many samples a latent stands for."""
        return math.prod(self.downsampling_ratios)

    @property
    def reach(self) -> int:
        """How many latents to each side of its own a decoded sample depends on at most."""
        reach = 3  # samples, of the last convolution
        for ratio in self.downsampling_ratios:
            wide = reach + sum(3 * dilation for dilation in DILATIONS)
            reach = -(-wide // ratio) + 1  # the transposed convolution reaches to the next
        return reach + 3

    def encode(self, samples: jax.Array) -> SoundDistribution:
        """The distribution of the latents of sounds."""
        if samples.ndim != 3 or samples.shape[-1] != self.audio_channels:
            raise ValueError(f"Samples must be (batch, number, {self.audio_channels}); they are {samples.shape}.")
        mean, scale = jnp.split(self.encoder(samples), 2, axis=-1)
        return SoundDistribution(mean, jax.nn.softplus(scale) + 1e-4)

    def decode(self, latents: jax.Array) -> jax.Array:
        """The sounds of latents."""
        if latents.ndim != 3 or latents.shape[-1] != self.decoder_input_channels:
            wanted = self.decoder_input_channels
            raise ValueError(f"Latents must be (batch, number, {wanted}); they are {latents.shape}.")
        return self.decoder(latents)

    def __call__(self, samples: jax.Array) -> jax.Array:
        """Encode, and decode the most probable latents."""
        return self.decode(self.encode(samples).mode())

    def example_inputs(self) -> tuple[Any, ...]:
        """As many samples as a latent stands for."""
        return (np.zeros((1, 2 * self.hop_length, self.audio_channels), np.float32),)
