"""UNet1DModel: the network of Dance Diffusion's sounds, and of planned motions."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from convert.tensors import Tensor
from fdiff.models.fields import Activation, Channels, Count, Index, Layers, OneOf, between, some
from fdiff.models.layers.checks import check_groups, check_layers, require
from fdiff.models.layers.embeddings import GaussianFourierProjection, TimestepEmbedding, sinusoidal
from fdiff.models.layers.unet_1d_blocks import (
    GROUPS,
    HEAD,
    MotionBlock,
    OutConv1DBlock,
    OutValueFunctionBlock,
    SoundBlock,
    ValueFunctionMidBlock1D,
)
from fdiff.models.model import Model

DownBlock = Annotated[str, OneOf(("DownBlock1DNoSkip", "DownBlock1D", "AttnDownBlock1D", "DownResnetBlock1D"))]
UpBlock = Annotated[str, OneOf(("UpBlock1DNoSkip", "UpBlock1D", "AttnUpBlock1D", "UpResnetBlock1D"))]
MidBlock = Annotated[str, OneOf(("UNetMidBlock1D", "MidResTemporalBlock1D", "ValueFunctionMidBlock1D"))]
Widths = Annotated[tuple[Count, ...], some(16)]  # Dance Diffusion has 13 levels


class UNet1DModel(Model):
    """A U-Net from a noisy sequence and its time to a sequence (Evans 2022, Janner et al. 2022).

    sample (b, n, in) -> (b, n, out), n a multiple of 2^levels; `timestep` is a number or (b,). With out_block_type
    "ValueFunction", -> (b, 1).

    time_embedding_dim is how many numbers the time becomes. Checkpoints of Dance Diffusion do not say it: there it is
    read from `time_proj.weight`, or, without weights, it is extra_in_channels, the channels that are its place.

        model, params = UNet1DModel.from_pretrained("harmonai/maestro-150k", subfolder="unet")
        velocity = model.apply({"params": params}, noisy, t)
    """

    sample_size: Annotated[int, between(1, 2**31)] = 65536
    sample_rate: Count | None = None
    in_channels: Channels = 2
    out_channels: Channels = 2
    extra_in_channels: Index = 0
    time_embedding_type: Annotated[str, OneOf(("fourier", "positional"))] = "fourier"
    time_embedding_dim: Count | None = None
    flip_sin_to_cos: bool = True
    use_timestep_embedding: bool = False
    freq_shift: Index = 0
    down_block_types: Annotated[tuple[DownBlock, ...], some(16)] = (
        "DownBlock1DNoSkip",
        "DownBlock1D",
        "AttnDownBlock1D",
    )
    up_block_types: tuple[UpBlock, ...] = ("AttnUpBlock1D", "UpBlock1D", "UpBlock1DNoSkip")
    mid_block_type: MidBlock = "UNetMidBlock1D"
    out_block_type: Annotated[str, OneOf(("OutConv1DBlock", "ValueFunction"))] | None = None
    block_out_channels: Widths = (32, 32, 64)
    act_fn: Activation | None = None
    norm_num_groups: Count | None = 8
    layers_per_block: Layers = 1
    downsample_each_block: bool = False

    def fitted(self, found: Mapping[str, Tensor]) -> Self:
        """With the width of the time that the weights have, where the config does not say it."""
        frequencies = found.get("time_proj.weight")
        if self.time_embedding_dim is not None or frequencies is None or len(frequencies.shape) != 1:
            return self
        return self.clone(time_embedding_dim=2 * frequencies.shape[0])

    @nn.compact
    def __call__(self, sample: jax.Array, timestep: jax.Array | float) -> jax.Array:
        self.check(sample.shape)
        temb = self.embed(jnp.broadcast_to(jnp.asarray(timestep), sample.shape[:1])).astype(sample.dtype)
        x, outputs = sample, []
        for level, kind in enumerate(self.down_block_types):
            x, skip = self.down(level, kind, x, temb)
            outputs.append(skip)
        x = self.middle(x, temb)
        for level, kind in enumerate(self.up_block_types):
            x = self.up(level, kind, jnp.concatenate([x, outputs.pop()], axis=-1), temb)
        if self.out_block_type == "OutConv1DBlock":
            groups = self.norm_num_groups or min(self.block_out_channels[0] // 4, 32)
            return OutConv1DBlock(self.out_channels, groups, self.act_fn or "", name="out_block")(x)
        if self.out_block_type == "ValueFunction":
            return OutValueFunctionBlock(self.block_out_channels[-1] // 8, self.act_fn or "", name="out_block")(x, temb)
        return x

    def embed(self, t: jax.Array) -> jax.Array:
        """What the blocks see of the time: (b,) -> (b, d)."""
        first = self.block_out_channels[0]
        if self.time_embedding_type == "fourier":
            project = GaussianFourierProjection(
                self.fourier_width() // 2, log=False, flip_sin_to_cos=self.flip_sin_to_cos, name="time_proj"
            )
            temb = project(t)
        else:
            temb = sinusoidal(t, first, flip_sin_to_cos=self.flip_sin_to_cos, freq_shift=self.freq_shift)
        if not self.use_timestep_embedding:
            return temb
        return TimestepEmbedding(4 * first, self.act_fn or "", out_features=first, name="time_mlp")(temb)

    def fourier_width(self) -> int:
        """How many numbers the time becomes."""
        return self.time_embedding_dim or self.extra_in_channels or 2 * self.block_out_channels[0]

    def down(self, level: int, kind: str, x: jax.Array, temb: jax.Array) -> tuple[jax.Array, jax.Array]:
        """One level on the way down: what goes on, and what the way up is given."""
        channels, name = self.block_out_channels[level], f"down_blocks.{level}"
        if kind == "DownResnetBlock1D":
            resizes = level < len(self.block_out_channels) - 1 or self.downsample_each_block
            return MotionBlock(channels, self.layers_per_block, "down" if resizes else None, name=name)(x, temb)
        plain = kind == "DownBlock1DNoSkip"
        if plain:
            x = jnp.concatenate([x, jnp.broadcast_to(temb[:, None], (*x.shape[:2], temb.shape[-1]))], axis=-1)
        x = SoundBlock(((channels, channels),) * 3, "Attn" in kind, halves=not plain, name=name)(x)
        return x, x

    def middle(self, x: jax.Array, temb: jax.Array) -> jax.Array:
        """The block at the bottom."""
        channels = self.block_out_channels[-1]
        if self.mid_block_type == "UNetMidBlock1D":
            return SoundBlock(((channels, channels),) * 6, True, halves=True, doubles=True, name="mid_block")(x)
        if self.mid_block_type == "ValueFunctionMidBlock1D":
            return ValueFunctionMidBlock1D(name="mid_block")(x, temb)
        resize = "down" if self.downsample_each_block else None
        return MotionBlock(channels, self.layers_per_block, resize, name="mid_block")(x, temb)[0]

    def up(self, level: int, kind: str, x: jax.Array, temb: jax.Array) -> jax.Array:
        """One level on the way up, counted from the bottom; half of the channels of x came from the way down."""
        widths, name, own = self.block_out_channels[::-1], f"up_blocks.{level}", x.shape[-1] // 2
        last = self.block_out_channels[0] if self.out_block_type else self.out_channels
        channels = widths[level + 1] if level < len(self.up_block_types) - 1 else last
        if kind == "UpResnetBlock1D":
            resize = "up" if level < len(widths) - 1 else None
            return MotionBlock(channels, self.layers_per_block, resize, name=name)(x, temb)[0]
        plain, mid = kind == "UpBlock1DNoSkip", channels if "Attn" in kind else own
        features = ((mid, mid), (mid, mid), (mid, channels))
        return SoundBlock(features, "Attn" in kind, doubles=not plain, ends=plain, name=name)(x)

    @property
    def kinds(self) -> tuple[str, ...]:
        """All blocks of the network."""
        return (*self.down_block_types, self.mid_block_type, *self.up_block_types)

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        widths = self.block_out_channels
        equal = len(self.down_block_types) == len(widths)
        require(equal, "down_block_types and block_out_channels must be equally long.")
        whole = len(self.up_block_types) in (0, len(widths) - 1, len(widths))
        require(whole, "up_block_types must be as long as down_block_types, one shorter, or empty.")
        check_layers("layers_per_block", self.layers_per_block * len(widths))
        motions = [kind for kind in self.kinds if "Res" in kind or "Value" in kind]
        if self.use_timestep_embedding:
            require(self.act_fn is not None, "use_timestep_embedding needs act_fn; give it silu or mish.")
            require("DownBlock1DNoSkip" not in self.kinds, "DownBlock1DNoSkip needs use_timestep_embedding false.")
        else:
            require(not motions, f"{motions[0] if motions else ''} needs use_timestep_embedding true.")
        named = self.out_block_type is None or self.act_fn is not None
        require(named, f"out_block_type {self.out_block_type} needs act_fn; give it mish.")
        value = self.out_block_type != "ValueFunction" or not self.up_block_types
        require(value, "out_block_type ValueFunction needs up_block_types empty.")
        ends = not (self.downsample_each_block and self.up_block_types)
        require(ends, "downsample_each_block needs up_block_types empty.")
        if self.time_embedding_type == "fourier":
            require(self.fourier_width() % 2 == 0, f"time_embedding_dim {self.fourier_width()} must be even.")
        else:
            good = widths[0] // 2 > self.freq_shift
            require(good, f"freq_shift {self.freq_shift} must be below half of block_out_channels[0], {widths[0]}.")
        self.check_channels(motions)

    def check_channels(self, motions: list[str]) -> None:
        """Refuse channels that blocks cannot divide."""
        widths = self.block_out_channels
        if "DownBlock1DNoSkip" in self.kinds:
            time = self.fourier_width() if self.time_embedding_type == "fourier" else widths[0]
            good = self.kinds.count("DownBlock1DNoSkip") == 1 and self.kinds[0] == "DownBlock1DNoSkip"
            require(good, "DownBlock1DNoSkip must be the first of down_block_types and no other.")
            good = self.extra_in_channels == time
            require(good, f"extra_in_channels {self.extra_in_channels} must be {time}, the numbers of the time.")
        else:
            none = not self.extra_in_channels
            require(none, "extra_in_channels needs DownBlock1DNoSkip as first of down_block_types.")
        if any("Attn" in kind for kind in self.kinds) or self.mid_block_type == "UNetMidBlock1D":
            small = [width for width in self.attending() if width < HEAD or width % (width // HEAD)]
            require(not small, f"{small[0] if small else 0} channels cannot attend in heads of about {HEAD}.")
        if motions:
            check_groups("block_out_channels", GROUPS, widths)
        if self.out_block_type == "OutConv1DBlock":
            check_groups("norm_num_groups", self.norm_num_groups or min(widths[0] // 4, 32), widths[:1])

    def attending(self) -> list[int]:
        """The channels of all blocks that attend."""
        widths, last = self.block_out_channels, self.block_out_channels[0] if self.out_block_type else self.out_channels
        down = [width for width, kind in zip(widths, self.down_block_types, strict=True) if "Attn" in kind]
        rising = [*widths[::-1][1:], last][: len(self.up_block_types)]
        if rising:
            rising[-1] = last
        up = [width for width, kind in zip(rising, self.up_block_types, strict=True) if "Attn" in kind]
        return down + up + ([widths[-1]] if self.mid_block_type == "UNetMidBlock1D" else [])

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse options that do not fit together, and a sample of the wrong shape."""
        self.check_options()
        multiple = self.multiple()
        if len(shape) != 3 or shape[2] != self.in_channels or shape[1] % multiple:
            raise ValueError(
                f"sample must be (batch, length, {self.in_channels}), the length a multiple of {multiple}; "
                f"it is {shape}."
            )

    def multiple(self) -> int:
        """Of what the length of a sample must be a multiple."""
        if not self.up_block_types:
            return 1
        motions = all("Res" in kind for kind in self.kinds)
        return 2 ** (len(self.block_out_channels) - motions)

    def example_inputs(self) -> tuple[Any, ...]:
        """The shortest sample that no reflection is too long for, and a time."""
        return np.zeros((1, 4 * self.multiple(), self.in_channels), np.float32), np.zeros(1, np.float32)
