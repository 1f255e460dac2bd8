"""AudioLDM 2's U-Net, and what brings its texts together."""

from typing import Annotated, Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import (
    Activation,
    Channels,
    Count,
    Depth,
    Epsilon,
    Factor,
    Index,
    Kernel,
    Layers,
    OneOf,
    Padding,
    Pixels,
    TimeShift,
    Widths,
    some,
)
from fdiff.models.layers.activations import activation
from fdiff.models.layers.checks import at, check_attention, check_groups, check_layers, check_lengths, needs, require
from fdiff.models.layers.conditions import embed_class, time_features, time_projection
from fdiff.models.layers.embeddings import TimestepEmbedding
from fdiff.models.layers.linear import Conv, Linear
from fdiff.models.layers.norm import GroupNorm
from fdiff.models.layers.parameter import parameter
from fdiff.models.layers.resnet import Downsample2D, ResnetBlock2D, Upsample2D
from fdiff.models.layers.transformer_2d import Transformer2DModel
from fdiff.models.layers.unet_2d_condition_blocks import score_mask
from fdiff.models.model import Model

FIRST = 2  # attention layers in a row that see the generated tokens; those behind see the text
Tokens = Annotated[tuple[Count | None, ...], some(4)]  # of each attention layer in a row; null: it sees the picture


class AudioLDM2UNet2DConditionModel(Model):
    """A U-Net of spectrograms whose layers attend to two sequences (Liu et al. 2024).

    sample (b, h, w, in_channels), `timestep` a number or (b,); encoder_hidden_states (b, n, d) are what a language
    model made, encoder_hidden_states_1 (b, m, e) a text, with encoder_attention_mask_1 (b, m), 1 where there is some.
    cross_attention_dim has for each level the attention layers behind a residual block: how wide the tokens are that
    each sees, or null. -> (b, h, w, out_channels).
    """

    sample_size: Pixels | tuple[Pixels, Pixels] | None = None
    in_channels: Channels = 4
    out_channels: Channels = 4
    flip_sin_to_cos: bool = True
    freq_shift: Index = 0
    down_block_types: tuple[Annotated[str, OneOf(("CrossAttnDownBlock2D", "DownBlock2D"))], ...] = (
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "DownBlock2D",
    )
    mid_block_type: Annotated[str, OneOf(("UNetMidBlock2DCrossAttn",))] = "UNetMidBlock2DCrossAttn"
    up_block_types: tuple[Annotated[str, OneOf(("CrossAttnUpBlock2D", "UpBlock2D"))], ...] = (
        "UpBlock2D",
        "CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D",
    )
    only_cross_attention: bool | tuple[bool, ...] = False
    block_out_channels: Widths = (320, 640, 1280, 1280)
    layers_per_block: Layers | tuple[Layers, ...] = 2
    downsample_padding: Padding = 1
    mid_block_scale_factor: Factor = 1.0
    act_fn: Activation = "silu"
    norm_num_groups: Count = 32
    norm_eps: Epsilon = 1e-5
    cross_attention_dim: Count | tuple[Count | Tokens, ...] = 1280
    transformer_layers_per_block: Depth | tuple[Depth, ...] = 1
    attention_head_dim: Count | tuple[Count, ...] = 8
    num_attention_heads: Count | tuple[Count, ...] | None = None
    use_linear_projection: bool = False
    class_embed_type: Annotated[str, OneOf(("timestep", "identity", "projection", "simple_projection"))] | None = None
    num_class_embeds: Count | None = None
    upcast_attention: bool = False  # the softmax and its input are float32 whatever this says
    resnet_time_scale_shift: TimeShift = "default"
    time_embedding_type: Annotated[str, OneOf(("positional",))] = "positional"
    time_embedding_dim: Count | None = None
    time_embedding_act_fn: Activation | None = None
    timestep_post_act: Activation | None = None
    time_cond_proj_dim: Count | None = None
    conv_in_kernel: Kernel = 3
    conv_out_kernel: Kernel = 3
    projection_class_embeddings_input_dim: Count | None = None
    class_embeddings_concat: bool = False

    @nn.compact
    def __call__(
        self,
        sample: jax.Array,
        timestep: jax.Array | float,
        encoder_hidden_states: jax.Array,
        encoder_hidden_states_1: jax.Array | None = None,
        encoder_attention_mask_1: jax.Array | None = None,
        class_labels: jax.Array | None = None,
        timestep_cond: jax.Array | None = None,
    ) -> jax.Array:
        self.check(sample.shape)
        temb = self.embed(jnp.broadcast_to(jnp.asarray(timestep), sample.shape[:1]), class_labels, timestep_cond)
        text = encoder_hidden_states if encoder_hidden_states_1 is None else encoder_hidden_states_1
        told = Told(encoder_hidden_states, text, score_mask(encoder_attention_mask_1))
        levels, kernel = range(len(self.block_out_channels)), self.conv_in_kernel
        x = Conv(self.block_out_channels[0], kernel, padding=(kernel - 1) // 2, name="conv_in")(sample)
        outputs = [x]
        for level in levels:
            name = f"down_blocks.{level}"
            for i in range(at(self.layers_per_block, level)):
                x = self.resnet(level, f"{name}.resnets.{i}")(x, temb)
                if "CrossAttn" in self.down_block_types[level]:
                    x = self.attend(level, name, i, x, told)
                outputs.append(x)
            if level < levels[-1]:
                down = Downsample2D(
                    self.block_out_channels[level], self.downsample_padding, name=f"{name}.downsamplers.0"
                )
                outputs.append(x := down(x))
        x = self.resnet(levels[-1], "mid_block.resnets.0", self.mid_block_scale_factor)(x, temb)
        x = self.attend(levels[-1], "mid_block", 0, x, told)
        x = self.resnet(levels[-1], "mid_block.resnets.1", self.mid_block_scale_factor)(x, temb)
        for level in reversed(levels):
            place = levels[-1] - level
            name = f"up_blocks.{place}"
            for i in range(at(self.layers_per_block, level) + 1):
                x = jnp.concatenate([x, outputs.pop()], axis=-1)
                x = self.resnet(level, f"{name}.resnets.{i}")(x, temb)
                if "CrossAttn" in self.up_block_types[place]:
                    x = self.attend(level, name, i, x, told)
            if level:
                size = (outputs[-1].shape[1], outputs[-1].shape[2])
                x = Upsample2D(self.block_out_channels[level], name=f"{name}.upsamplers.0")(x, size)
        x = nn.silu(GroupNorm(self.norm_num_groups, self.norm_eps, name="conv_norm_out")(x))
        kernel = self.conv_out_kernel
        return Conv(self.out_channels, kernel, padding=(kernel - 1) // 2, name="conv_out")(x)

    def embed(self, t: jax.Array, class_labels: jax.Array | None, condition: jax.Array | None) -> jax.Array:
        """What residual blocks see of the time and the class: (b, d)."""
        features = time_features(self)
        project = time_projection(self, features)
        embedding = TimestepEmbedding(
            features,
            self.act_fn,
            post_act_fn=self.timestep_post_act,
            cond_proj_dim=self.time_cond_proj_dim,
            name="time_embedding",
        )
        temb: jax.Array = embedding(project(t), condition)
        label = embed_class(self, project, class_labels, features)
        if label is not None:
            temb = jnp.concatenate([temb, label], axis=-1) if self.class_embeddings_concat else temb + label
        act = self.time_embedding_act_fn
        return temb if act is None else activation(act)(temb)

    def resnet(self, level: int, name: str, factor: float = 1.0) -> ResnetBlock2D:
        """A residual block."""
        return ResnetBlock2D(
            self.block_out_channels[level],
            groups=self.norm_num_groups,
            eps=self.norm_eps,
            non_linearity=self.act_fn,
            time_embedding_norm=self.resnet_time_scale_shift,
            output_scale_factor=factor,
            name=name,
        )

    def attend(self, level: int, name: str, layer: int, x: jax.Array, told: "Told") -> jax.Array:
        """The attention layers behind a residual block, in a row."""
        widths, heads = self.tokens(level), at(self.attention_head_dim, level)
        for i, width in enumerate(widths):
            transformer = Transformer2DModel(
                heads,
                self.block_out_channels[level] // heads,
                num_layers=at(self.transformer_layers_per_block, level),
                norm_num_groups=self.norm_num_groups,
                use_linear_projection=self.use_linear_projection,
                only_cross_attention=at(self.only_cross_attention, level) and name != "mid_block",
                name=f"{name}.attentions.{layer * len(widths) + i}",
            )
            context, mask = (told.generated, None) if i < FIRST else (told.text, told.mask)
            if width is None:
                x = transformer(x)
            elif context.shape[-1] != width:
                raise ValueError(f"Tokens must have {width} numbers at level {level}; they have {context.shape[-1]}.")
            else:
                x = transformer(x, context, mask)
        return x

    def tokens(self, level: int) -> tuple[int | None, ...]:
        """How wide the tokens are that the attention layers of a level see."""
        width: Any = at(self.cross_attention_dim, level)
        return width if isinstance(width, tuple) else (width,)

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        check_lengths(self)
        widths = self.block_out_channels
        check_layers("layers_per_block", sum(at(self.layers_per_block, level) for level in range(len(widths))))
        check_groups("norm_num_groups", self.norm_num_groups, widths)
        check_attention(self)
        unset = self.num_attention_heads is None
        require(unset, "num_attention_heads must be null; attention_head_dim is their number.")
        small = widths[0] // 2 <= self.freq_shift
        require(not small, f"freq_shift {self.freq_shift} must be below half of block_out_channels[0], {widths[0]}.")
        if self.class_embed_type in ("projection", "simple_projection"):
            needs(self, "class_embed_type", "projection_class_embeddings_input_dim")

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse options that do not fit together, and a sample of the wrong shape."""
        self.check_options()
        if len(shape) != 4 or shape[3] != self.in_channels:
            raise ValueError(f"sample must be (batch, height, width, {self.in_channels}); it is {shape}.")

    def example_inputs(self) -> tuple[Any, ...]:
        """A sample, a time, tokens of either kind and whatever class the options ask for."""
        size = 2 ** (len(self.block_out_channels) - 1)
        rows = [self.tokens(level) for level in range(len(self.block_out_channels))]
        kinds = ([width for row in rows for width in row[part] if width] for part in (slice(FIRST), slice(FIRST, None)))
        first, second = (np.zeros((1, 1, found[0] if found else 1), np.float32) for found in kinds)
        labels: Any = None
        if self.class_embed_type in ("projection", "simple_projection"):
            labels = np.zeros((1, self.projection_class_embeddings_input_dim or 1), np.float32)
        elif self.class_embed_type == "identity":
            labels = np.zeros((1, time_features(self)), np.float32)
        elif self.class_embed_type == "timestep" or self.num_class_embeds is not None:
            labels = np.zeros(1, np.int32)
        sample = np.zeros((1, size, size, self.in_channels), np.float32)
        return sample, np.zeros(1, np.int32), first, second, None, labels


class Told(NamedTuple):
    """What a language model made, a text, and what is added to the scores of its tokens."""

    generated: jax.Array
    text: jax.Array
    mask: jax.Array | None


class AudioLDM2Told(NamedTuple):
    """Two texts behind each other, (b, n, d), and where there is something, (b, n)."""

    hidden_states: jax.Array
    mask: jax.Array


class AudioLDM2ProjectionModel(Model):
    """Two texts (b, n, d), each with its mask (b, n), to one of the width of a language model: AudioLDM2Told.

    Each gets a learned start and end.
    """

    library: ClassVar[str] = "audioldm2"

    text_encoder_dim: Count = 512
    text_encoder_1_dim: Count = 1024
    langauge_model_dim: Count = 768  # as the Hub spells it
    use_learned_position_embedding: bool | None = None
    max_seq_length: Count | None = None

    @nn.compact
    def __call__(
        self, first: jax.Array, first_mask: jax.Array, second: jax.Array, second_mask: jax.Array
    ) -> AudioLDM2Told:
        self.check_options()
        if self.use_learned_position_embedding is not None:
            shape = (1, self.text_encoder_1_dim, self.max_seq_length or 0)
            table = parameter(self, "learnable_positional_embedding", nn.initializers.zeros, shape)
            second = second + table.swapaxes(1, 2)
        parts = [self.framed("", first, first_mask), self.framed("_1", second, second_mask)]
        states, masks = zip(*parts, strict=True)
        return AudioLDM2Told(jnp.concatenate(states, axis=1), jnp.concatenate(masks, axis=1))

    def framed(self, name: str, x: jax.Array, mask: jax.Array) -> AudioLDM2Told:
        """A text with its start and its end."""
        x = Linear(self.langauge_model_dim, name=f"projection{name}")(x)
        shape = (x.shape[0], 1, self.langauge_model_dim)
        start, end = (
            jnp.broadcast_to(parameter(self, f"{kind}_embed{name}", nn.initializers.ones, shape[2:]), shape)
            for kind in ("sos", "eos")
        )
        mask = jnp.pad(mask != 0, ((0, 0), (1, 1)), constant_values=True)
        return AudioLDM2Told(jnp.concatenate([start, x, end], axis=1), mask)

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        if self.use_learned_position_embedding is not None:
            needs(self, "use_learned_position_embedding", "max_seq_length")

    def example_inputs(self) -> tuple[Any, ...]:
        """A token of each."""
        length = 1 if self.use_learned_position_embedding is None else self.max_seq_length or 1
        first = np.zeros((1, 1, self.text_encoder_dim), np.float32)
        second = np.zeros((1, length, self.text_encoder_1_dim), np.float32)
        return first, np.ones((1, 1), np.int32), second, np.ones((1, length), np.int32)
