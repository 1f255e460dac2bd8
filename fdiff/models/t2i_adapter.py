"""T2IAdapter: a small network that steers a U-Net by a picture."""

from collections.abc import Sequence
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Channels, Layers, OneOf, Widths, between
from fdiff.models.layers.checks import require
from fdiff.models.layers.linear import Conv
from fdiff.models.layers.patches import unshuffle
from fdiff.models.layers.resnet import average
from fdiff.models.model import Model


class T2IAdapter(Model):
    """A picture to features that are added on a U-Net's way down (Mou et al. 2023).

    (b, h, w, in_channels) in [0, 1] -> a tuple of features, one for each level, which UNet2DConditionModel
    takes as down_intrablock_additional_residuals. Height and width are multiples of downscale_factor.
    """

    in_channels: Channels = 3
    channels: Widths = (320, 640, 1280, 1280)
    num_res_blocks: Layers = 2
    downscale_factor: Annotated[int, between(1, 64)] = 8
    adapter_type: Annotated[str, OneOf(("full_adapter", "full_adapter_xl", "light_adapter"))] = "full_adapter"

    def setup(self) -> None:
        """Make the network, whose parameters are below `adapter`."""
        self.check_options()
        self.adapter = Adapter(self.channels, self.num_res_blocks, self.downscale_factor, self.adapter_type)

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        narrow = self.adapter_type == "light_adapter" and min(self.channels) < 4
        require(not narrow, f"A light_adapter needs at least 4 channels; channels are {self.channels}.")

    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """The features of a picture."""
        factor = self.downscale_factor
        if x.ndim != 4 or x.shape[1] % factor or x.shape[2] % factor or x.shape[3] != self.in_channels:
            raise ValueError(
                f"The picture must be (batch, height, width, {self.in_channels}), height and width multiples "
                f"of {factor}; it is {x.shape}."
            )
        return self.adapter(x)

    @property
    def total_downscale_factor(self) -> int:
        """How much smaller than the picture the smallest features are."""
        halvings = {"full_adapter": len(self.channels) - 1, "full_adapter_xl": 1}
        return self.downscale_factor * 2 ** halvings.get(self.adapter_type, len(self.channels))

    def example_inputs(self) -> tuple[np.ndarray]:
        """One picture of one feature."""
        return (np.zeros((1, self.downscale_factor, self.downscale_factor, self.in_channels), np.float32),)


class Adapter(nn.Module):
    """Squares of pixels to channels, then a block for each level."""

    channels: tuple[int, ...]
    num_res_blocks: int
    downscale_factor: int
    kind: str

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        x = unshuffle(x, self.downscale_factor)
        light = self.kind == "light_adapter"
        channels = (*self.channels, self.channels[-1]) if light else self.channels
        if not light:
            x = Conv(channels[0], name="conv_in")(x)
        features = []
        for i, width in enumerate(channels):
            down = i == 2 if self.kind == "full_adapter_xl" else i > 0
            x = halve(x) if down else x
            x = AdapterBlock(width, self.num_res_blocks, light, name=f"body.{i}")(x)
            features.append(x)
        return tuple(features)


class AdapterBlock(nn.Module):
    """Residual blocks; those of a light adapter have a quarter of the channels."""

    channels: int
    num_res_blocks: int
    light: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inner = self.channels // 4 if self.light else self.channels
        if self.light or x.shape[-1] != inner:
            x = Conv(inner, 1, padding=0, name="in_conv")(x)
        for i in range(self.num_res_blocks):
            x = AdapterResnetBlock(inner, 3 if self.light else 1, name=f"resnets.{i}")(x)
        return Conv(self.channels, 1, padding=0, name="out_conv")(x) if self.light else x


class AdapterResnetBlock(nn.Module):
    """Two convolutions with a ReLU between, plus the input."""

    channels: int
    second_kernel_size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = self.second_kernel_size
        y = nn.relu(Conv(self.channels, name="block1")(x))
        return x + Conv(self.channels, size, padding=size // 2, name="block2")(y)


def halve(x: jax.Array) -> jax.Array:
    """Mean of each 2 x 2 square, an odd last row being its own neighbour."""
    for axis in (1, 2):
        if x.shape[axis] % 2:
            x = jnp.concatenate([x, jax.lax.slice_in_dim(x, -1, None, axis=axis)], axis)
    return average(x)


def add_features(
    features: Sequence[Sequence[jax.Array]], weights: Sequence[float] | None = None
) -> tuple[jax.Array, ...]:
    """What several adapters give, weighted (equally if not told) and added, for one U-Net."""
    shares = [1 / len(features)] * len(features) if weights is None else weights
    levels = zip(*features, strict=True)
    return tuple(sum(share * x for share, x in zip(shares, level, strict=True)) for level in levels)
