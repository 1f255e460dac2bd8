"""SpeechT5HifiGan: mel spectrograms to the samples of speech, music and other sounds."""

from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Count, Factor, Kernel, between, some
from fdiff.models.layers.checks import require
from fdiff.models.layers.conv1d import Conv1d, ConvTranspose1d
from fdiff.models.layers.parameter import parameter
from fdiff.models.model import Model

LAST_SLOPE = 0.01  # of the last activation, whatever the config says
Rates = Annotated[tuple[Annotated[int, between(1, 64)], ...], some(8)]
Sizes = Annotated[tuple[Kernel, ...], some(8)]


class SpeechT5HifiGan(Model):
    """HiFi-GAN (Kong et al. 2020): log mel spectrograms (b, n, model_in_dim) -> samples (b, n product of the rates).

    With normalize_before, the mean and the deviation of what it was trained on are taken out first.

        samples = vocoder.apply({"params": params}, spectrogram)
    """

    weights_name: ClassVar[str] = "model"
    model_type: ClassVar[str | None] = "hifigan"

    model_in_dim: Count = 80
    sampling_rate: Count = 16000
    upsample_initial_channel: Count = 512
    upsample_rates: Rates = (4, 4, 4, 4)
    upsample_kernel_sizes: Rates = (8, 8, 8, 8)
    resblock_kernel_sizes: Sizes = (3, 7, 11)
    resblock_dilation_sizes: Annotated[tuple[Rates, ...], some(8)] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    leaky_relu_slope: Factor = 0.1
    normalize_before: bool = True

    @nn.compact
    def __call__(self, spectrogram: jax.Array) -> jax.Array:
        self.check_options()
        if spectrogram.ndim != 3 or spectrogram.shape[-1] != self.model_in_dim:
            raise ValueError(f"spectrogram must be (batch, number, {self.model_in_dim}); it is {spectrogram.shape}.")
        mean = parameter(self, "mean", nn.initializers.zeros, (self.model_in_dim,))
        deviation = parameter(self, "scale_", nn.initializers.ones, (self.model_in_dim,))
        x = (spectrogram - mean) / deviation if self.normalize_before else spectrogram
        x = Conv1d(self.upsample_initial_channel, 7, padding=3, name="conv_pre")(x)
        for i, (rate, size) in enumerate(zip(self.upsample_rates, self.upsample_kernel_sizes, strict=True)):
            features = self.upsample_initial_channel // 2 ** (i + 1)
            grow = ConvTranspose1d(features, size, rate, (size - rate) // 2, name=f"upsampler.{i}")
            x = grow(nn.leaky_relu(x, self.leaky_relu_slope))
            first, count = i * len(self.resblock_kernel_sizes), len(self.resblock_kernel_sizes)
            x = jnp.asarray(sum(self.residual(f"resblocks.{first + j}", j, x) for j in range(count))) / count
        x = Conv1d(1, 7, padding=3, name="conv_post")(nn.leaky_relu(x, LAST_SLOPE))
        return jnp.tanh(x[..., 0])

    def residual(self, name: str, kind: int, x: jax.Array) -> jax.Array:
        """Convolutions in pairs, the first of each dilated, added to their input."""
        size = self.resblock_kernel_sizes[kind]
        for i, dilation in enumerate(self.resblock_dilation_sizes[kind]):
            y = nn.leaky_relu(x, self.leaky_relu_slope)
            padding = (size - 1) * dilation // 2
            y = Conv1d(x.shape[-1], size, padding=padding, dilation=dilation, name=f"{name}.convs1.{i}")(y)
            y = nn.leaky_relu(y, self.leaky_relu_slope)
            x += Conv1d(x.shape[-1], size, padding=size // 2, name=f"{name}.convs2.{i}")(y)
        return x

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        rates, sizes = self.upsample_rates, self.upsample_kernel_sizes
        require(len(rates) == len(sizes), "upsample_rates and upsample_kernel_sizes must be equally long.")
        small = [size for rate, size in zip(rates, sizes, strict=True) if size < rate]
        require(not small, f"upsample_kernel_sizes {sizes} must not be below upsample_rates {rates}.")
        equal = len(self.resblock_kernel_sizes) == len(self.resblock_dilation_sizes)
        require(equal, "resblock_kernel_sizes and resblock_dilation_sizes must be equally long.")
        width = self.upsample_initial_channel
        good = width % 2 ** len(rates) == 0
        require(good, f"upsample_initial_channel {width} must be a multiple of {2 ** len(rates)}, to be halved.")

    def example_inputs(self) -> tuple[Any, ...]:
        """One column of a spectrogram."""
        return (np.zeros((1, 1, self.model_in_dim), np.float32),)
