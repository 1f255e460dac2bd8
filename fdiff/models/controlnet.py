"""ControlNetModel: a copy of a U-Net's way down that steers the U-Net by a picture."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, Self

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
    Layers,
    OneOf,
    Padding,
    TimeShift,
    Widths,
    some,
)
from fdiff.models.layers.checks import check_conditions, check_levels
from fdiff.models.layers.conditions import (
    Added,
    AdditionType,
    ClassType,
    ContextType,
    embed,
    example_conditions,
    project_context,
    zeros,
)
from fdiff.models.layers.linear import Conv
from fdiff.models.layers.unet_2d_condition_blocks import (
    DownBlock,
    MidBlock,
    check_tokens,
    conditions,
    down_block,
    mid_block,
    score_mask,
)
from fdiff.models.model import Model
from fdiff.models.unet_2d_condition import UNet2DConditionModel

ZERO = "controlnet_(down|mid)_block|spatial_ch_projs"  # layers of a new ControlNet through which nothing passes yet


class ControlNetOutput(NamedTuple):
    """What is added to a U-Net: a picture for each output on its way down, and one for the bottom.

    The names are those of diffusers; the U-Net takes them as down_block_additional_residuals and
    mid_block_additional_residual.
    """

    down_block_res_samples: tuple[jax.Array, ...]
    mid_block_res_sample: jax.Array


class ControlNetBase(Model):
    """What the kinds of ControlNet share: their options, the way down, and how they begin from a U-Net."""

    in_channels: Channels = 4
    conditioning_channels: Channels = 3
    flip_sin_to_cos: bool = True
    freq_shift: Index = 0
    down_block_types: tuple[DownBlock, ...] = (
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "DownBlock2D",
    )
    only_cross_attention: bool | tuple[bool, ...] = False
    block_out_channels: Widths = (320, 640, 1280, 1280)
    layers_per_block: Layers = 2
    downsample_padding: Padding = 1
    mid_block_scale_factor: Factor = 1.0
    act_fn: Activation = "silu"
    norm_num_groups: Count | None = 32
    norm_eps: Epsilon = 1e-5
    cross_attention_dim: Count = 1280
    transformer_layers_per_block: Depth | tuple[Depth, ...] = 1
    encoder_hid_dim: Count | None = None
    encoder_hid_dim_type: ContextType | None = None
    attention_head_dim: Count | tuple[Count, ...] = 8
    num_attention_heads: Count | tuple[Count, ...] | None = None
    use_linear_projection: bool = False
    class_embed_type: ClassType | None = None
    addition_embed_type: AdditionType | None = None
    addition_time_embed_dim: Count | None = None
    num_class_embeds: Count | None = None
    upcast_attention: bool | None = False
    resnet_time_scale_shift: TimeShift = "default"
    projection_class_embeddings_input_dim: Count | None = None
    controlnet_conditioning_channel_order: Annotated[str, OneOf(("rgb", "bgr"))] = "rgb"
    conditioning_embedding_out_channels: Annotated[tuple[Count, ...], some(5)] = (16, 32, 96, 256)
    global_pool_conditions: bool = False
    addition_embed_type_num_heads: Count = 64

    # Options of UNet2DConditionModel that no ControlNet has.
    dropout: ClassVar[float] = 0.0
    dual_cross_attention: ClassVar[bool] = False
    resnet_skip_time_act: ClassVar[bool] = False
    resnet_out_scale_factor: ClassVar[float] = 1.0
    time_embedding_type: ClassVar[str] = "positional"
    time_embedding_dim: ClassVar[None] = None
    time_embedding_act_fn: ClassVar[None] = None
    timestep_post_act: ClassVar[None] = None
    time_cond_proj_dim: ClassVar[None] = None
    class_embeddings_concat: ClassVar[bool] = False
    mid_block_only_cross_attention: ClassVar[bool] = False
    cross_attention_norm: ClassVar[None] = None

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        check_levels(self)
        check_conditions(self)

    def told(
        self,
        t: jax.Array,
        context: jax.Array | None,
        class_labels: jax.Array | None,
        timestep_cond: jax.Array | None,
        added: Added,
    ) -> tuple[jax.Array, jax.Array | None]:
        """The vectors that residual blocks see and the tokens that attention sees."""
        self.check_options()
        temb, _ = embed(self, t, context, class_labels, timestep_cond, added)
        context = project_context(self, context, added)
        check_tokens(self, context)
        return temb, context

    def embed_picture(self) -> "ControlNetConditioningEmbedding":
        """The module from a picture to features of the latents' size."""
        features, channels = self.block_out_channels[0], self.conditioning_embedding_out_channels
        return ControlNetConditioningEmbedding(features, channels, name="controlnet_cond_embedding")

    def descend(
        self, x: jax.Array, temb: jax.Array, context: jax.Array | None, mask: jax.Array | None
    ) -> list[jax.Array]:
        """The way down: what is added to each output of a U-Net's, and last what is added to its bottom."""
        outputs = [x]
        for level, kind in enumerate(self.down_block_types):
            x, more = down_block(self, level)(x, temb, *conditions(kind, context, None, mask))
            outputs += more
        if self.mid_block_type is not None:
            x = mid_block(self)(x, temb, *conditions(self.mid_block_type, context, None, mask))
        outputs = [
            Conv(y.shape[-1], 1, padding=0, name=f"controlnet_down_blocks.{i}")(y) for i, y in enumerate(outputs)
        ]
        return [*outputs, Conv(x.shape[-1], 1, padding=0, name="controlnet_mid_block")(x)]

    def output(self, residuals: list[jax.Array], scale: jax.Array | float, guess_mode: bool) -> ControlNetOutput:
        """The residuals times a scale, less at the top in guess mode, or the means of them."""
        scales = jnp.full(len(residuals), scale, residuals[0].dtype)
        if guess_mode and not self.global_pool_conditions:
            scales *= jnp.logspace(-1, 0, len(residuals), dtype=scales.dtype)
        residuals = [y * one for y, one in zip(residuals, scales, strict=True)]
        if self.global_pool_conditions:
            residuals = [y.mean((1, 2), keepdims=True) for y in residuals]
        return ControlNetOutput(tuple(residuals[:-1]), residuals[-1])

    def example_picture(self, sample: np.ndarray) -> np.ndarray:
        """The smallest legal picture beside a sample."""
        factor = 2 ** (len(self.conditioning_embedding_out_channels) - 1)
        return zeros(1, factor * sample.shape[1], factor * sample.shape[2], self.conditioning_channels)

    @classmethod
    def from_unet(
        cls,
        unet: UNet2DConditionModel,
        params: Any,
        key: jax.Array,
        conditioning_channels: int = 3,
        conditioning_embedding_out_channels: tuple[int, ...] = (16, 32, 96, 256),
    ) -> tuple[Self, dict[str, Any]]:
        """A ControlNet to be trained: a copy of a U-Net's way down that does not change anything yet."""
        fields = {field.name for field in dataclasses.fields(cls)} - {"parent", "name"}
        given = {name: value for name, value in vars(unet).items() if name in fields}
        for name in fields & {"num_trans_channel", "num_proj_channel"}:  # of what is added to the first features
            given[name] = unet.block_out_channels[0]
        model = cls(
            **given,
            conditioning_channels=conditioning_channels,
            conditioning_embedding_out_channels=conditioning_embedding_out_channels,
        )

        def draw(key: jax.Array) -> dict[str, Any]:  # compiled, it draws nothing that it does not return
            fresh = model.init(key, *model.example_inputs())["params"]
            return {name: tree for name, tree in fresh.items() if name not in params}

        new = jax.jit(draw)(key)
        for name in new:
            if re.match(ZERO, name):
                new[name] = jax.tree.map(jnp.zeros_like, new[name])
        embedding = new["controlnet_cond_embedding"]
        embedding["conv_out"] = jax.tree.map(jnp.zeros_like, embedding["conv_out"])
        return model, {name: params[name] if name in params else new[name] for name in model.shapes()}


class ControlNetModel(ControlNetBase):
    """Latents, their time, a text and a picture to residuals for a UNet2DConditionModel (Zhang et al. 2023).

    `controlnet_cond` (b, 8 h, 8 w, conditioning_channels) in [0, 1] is the picture; the other arguments are
    the U-Net's. The residuals are multiplied by `conditioning_scale`; with `guess_mode` also by 0.1 to 1 from
    the top to the bottom.

        residuals = controlnet.apply({"params": controlnet_params}, latents, t, tokens, picture)
        eps = unet.apply(
            {"params": params}, latents, t, tokens,
            down_block_additional_residuals=residuals.down_block_res_samples,
            mid_block_additional_residual=residuals.mid_block_res_sample,
        )
    """

    mid_block_type: MidBlock | None = "UNetMidBlock2DCrossAttn"

    @nn.compact
    def __call__(
        self,
        sample: jax.Array,
        timestep: jax.Array | float,
        encoder_hidden_states: jax.Array,
        controlnet_cond: jax.Array,
        conditioning_scale: jax.Array | float = 1.0,
        class_labels: jax.Array | None = None,
        timestep_cond: jax.Array | None = None,
        attention_mask: jax.Array | None = None,
        added_cond_kwargs: Added | None = None,
        guess_mode: bool = False,
    ) -> ControlNetOutput:
        picture = controlnet_cond if self.controlnet_conditioning_channel_order == "rgb" else controlnet_cond[..., ::-1]
        t = jnp.broadcast_to(jnp.asarray(timestep), sample.shape[:1])
        temb, context = self.told(t, encoder_hidden_states, class_labels, timestep_cond, added_cond_kwargs or {})
        x = Conv(self.block_out_channels[0], name="conv_in")(sample) + self.embed_picture()(picture)
        residuals = self.descend(x, temb, context, score_mask(attention_mask))
        return self.output(residuals, conditioning_scale, guess_mode)

    def example_inputs(self) -> tuple[Any, ...]:
        """The U-Net's, and a picture."""
        sample, time, tokens, labels, added = example_conditions(self)
        return sample, time, tokens, self.example_picture(sample), 1.0, labels, None, None, added


class ControlNetConditioningEmbedding(nn.Module):
    """A picture to features of an eighth of its size: (b, 8 h, 8 w, c) -> (b, h, w, features)."""

    features: int
    channels: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.silu(Conv(self.channels[0], name="conv_in")(x))
        for i, channels in enumerate(self.channels[1:]):
            x = nn.silu(Conv(x.shape[-1], name=f"blocks.{2 * i}")(x))
            x = nn.silu(Conv(channels, stride=2, name=f"blocks.{2 * i + 1}")(x))
        return Conv(self.features, name="conv_out")(x)


def add_residuals(outputs: Sequence[ControlNetOutput]) -> ControlNetOutput:
    """The sum of what several ControlNets give, for one U-Net."""
    return jax.tree.map(lambda *parts: sum(parts), *outputs)
