"""UNet2DConditionModel: the denoiser of Stable Diffusion, SDXL, DeepFloyd IF, Kandinsky 2 and AudioLDM."""

from collections.abc import Sequence
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fdiff.models.fields import (
    Activation,
    Channels,
    Count,
    Depth,
    Dropout,
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
)
from fdiff.models.layers.activations import activation
from fdiff.models.layers.checks import at, check_conditions, check_levels
from fdiff.models.layers.conditions import (
    Added,
    AdditionType,
    ClassType,
    ContextType,
    embed,
    example_conditions,
    project_context,
)
from fdiff.models.layers.linear import Conv
from fdiff.models.layers.norm import GroupNorm
from fdiff.models.layers.unet_2d_condition_blocks import (
    DownBlock,
    MidBlock,
    UpBlock,
    check_tokens,
    conditions,
    down_block,
    mid_block,
    score_mask,
    up_block,
)
from fdiff.models.model import Model


class UNet2DConditionModel(Model):
    """A U-Net from noisy latents, their time and a text to latents (Rombach et al. 2022).

    sample (b, h, w, in_channels) -> (b, h, w, out_channels). `timestep` is a number or (b,).
    encoder_hidden_states (b, m, d) are the tokens that it attends to, None where cross_attention_dim holds
    the channels of the levels (AudioLDM). `class_labels` are integers (b,), times (b,) or vectors (b, d), as
    class_embed_type says; `timestep_cond` (b, time_cond_proj_dim) is the guidance embedding of LCM;
    `added_cond_kwargs` holds what addition_embed_type and encoder_hid_dim_type ask for: text_embeds (b, d),
    time_ids (b, n), image_embeds (b, d), hint (b, 8 h, 8 w, 3). `encoder_attention_mask` (b, m) is 1 for
    tokens to look at, `attention_mask` (b, h * w) for positions.

    `down_block_additional_residuals` (one for each output on the way down) and
    `mid_block_additional_residual` come from a ControlNetModel, `down_intrablock_additional_residuals` (one
    for each level) from a T2IAdapter.

        unet, params = UNet2DConditionModel.from_pretrained(repo, subfolder="unet")
        eps = unet.apply({"params": params}, latents, t, tokens)

    Collections beside the parameters change a run: "lora" (see fdiff.models.layers.linear) and "attention"
    (see fdiff.models.edits).
    """

    sample_size: Pixels | tuple[Pixels, Pixels] | None = None
    in_channels: Channels = 4
    out_channels: Channels = 4
    center_input_sample: bool = False
    flip_sin_to_cos: bool = True
    freq_shift: Index = 0
    down_block_types: tuple[DownBlock, ...] = (
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "DownBlock2D",
    )
    mid_block_type: MidBlock | None = "UNetMidBlock2DCrossAttn"
    up_block_types: tuple[UpBlock, ...] = (
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
    dropout: Dropout = 0.0
    act_fn: Activation = "silu"
    norm_num_groups: Count | None = 32
    norm_eps: Epsilon = 1e-5
    cross_attention_dim: Count | tuple[Count, ...] = 1280
    transformer_layers_per_block: Depth | tuple[Depth | tuple[Depth, ...], ...] = 1
    reverse_transformer_layers_per_block: tuple[Depth | tuple[Depth, ...], ...] | None = None
    encoder_hid_dim: Count | None = None
    encoder_hid_dim_type: ContextType | None = None
    attention_head_dim: Count | tuple[Count, ...] = 8
    num_attention_heads: Count | tuple[Count, ...] | None = None
    dual_cross_attention: bool = False
    use_linear_projection: bool = False
    class_embed_type: ClassType | None = None
    addition_embed_type: AdditionType | None = None
    addition_time_embed_dim: Count | None = None
    num_class_embeds: Count | None = None
    upcast_attention: bool | None = False  # the softmax and its input are float32 whatever this says
    resnet_time_scale_shift: TimeShift = "default"
    resnet_skip_time_act: bool = False
    resnet_out_scale_factor: Factor = 1.0
    time_embedding_type: Annotated[str, OneOf(("positional", "fourier"))] = "positional"
    time_embedding_dim: Count | None = None
    time_embedding_act_fn: Activation | None = None
    timestep_post_act: Activation | None = None
    time_cond_proj_dim: Count | None = None
    conv_in_kernel: Kernel = 3
    conv_out_kernel: Kernel = 3
    projection_class_embeddings_input_dim: Count | None = None
    attention_type: Annotated[str, OneOf(("default",))] = "default"
    class_embeddings_concat: bool = False
    mid_block_only_cross_attention: bool | None = None
    cross_attention_norm: Annotated[str, OneOf(("layer_norm", "group_norm"))] | None = None
    addition_embed_type_num_heads: Count = 64

    @nn.compact
    def __call__(
        self,
        sample: jax.Array,
        timestep: jax.Array | float,
        encoder_hidden_states: jax.Array | None,
        class_labels: jax.Array | None = None,
        timestep_cond: jax.Array | None = None,
        attention_mask: jax.Array | None = None,
        added_cond_kwargs: Added | None = None,
        down_block_additional_residuals: Sequence[jax.Array] | None = None,
        mid_block_additional_residual: jax.Array | None = None,
        down_intrablock_additional_residuals: Sequence[jax.Array] | None = None,
        encoder_attention_mask: jax.Array | None = None,
    ) -> jax.Array:
        self.check(sample.shape)
        context, added = encoder_hidden_states, added_cond_kwargs or {}
        t = jnp.broadcast_to(jnp.asarray(timestep), sample.shape[:1])
        temb, hint = embed(self, t, context, class_labels, timestep_cond, added)
        context = project_context(self, context, added)
        check_tokens(self, context)
        masks = score_mask(encoder_attention_mask), score_mask(attention_mask)

        x = 2 * sample - 1 if self.center_input_sample else sample
        if hint is not None:
            x = jnp.concatenate([x, hint.astype(x.dtype)], axis=-1)
        kernel = self.conv_in_kernel
        x = Conv(self.block_out_channels[0], kernel, padding=(kernel - 1) // 2, name="conv_in")(x)
        x, outputs, features = self.descend(x, temb, context, masks, list(down_intrablock_additional_residuals or ()))

        if self.mid_block_type is not None:
            x = mid_block(self)(x, temb, *conditions(self.mid_block_type, context, *masks))
        if features and features[0].shape == x.shape:  # of a T2IAdapter for SDXL
            x += features[0]

        if down_block_additional_residuals is not None:
            if len(down_block_additional_residuals) != len(outputs):
                raise ValueError(
                    f"down_block_additional_residuals must be {len(outputs)}, not "
                    f"{len(down_block_additional_residuals)}; give those of a ControlNet for this U-Net."
                )
            outputs = [a + b for a, b in zip(outputs, down_block_additional_residuals, strict=True)]
        if mid_block_additional_residual is not None:
            x += mid_block_additional_residual

        for level in reversed(range(len(self.up_block_types))):
            kind = self.up_block_types[-1 - level]
            layers = at(self.layers_per_block, level) + (0 if kind.startswith("K") else 1)
            skips = [outputs.pop() for _ in range(layers)]
            size = (outputs[-1].shape[1], outputs[-1].shape[2]) if outputs else None
            x = up_block(self, level)(x, skips, temb, *conditions(kind, context, *masks), size=size)

        if self.norm_num_groups is not None:
            x = GroupNorm(self.norm_num_groups, self.norm_eps, name="conv_norm_out")(x)
            x = activation(self.act_fn)(x)
        kernel = self.conv_out_kernel
        return Conv(self.out_channels, kernel, padding=(kernel - 1) // 2, name="conv_out")(x)

    def descend(
        self,
        x: jax.Array,
        temb: jax.Array,
        context: jax.Array | None,
        masks: tuple[jax.Array | None, jax.Array | None],
        features: list[jax.Array],
    ) -> tuple[jax.Array, list[jax.Array], list[jax.Array]]:
        """The way down, where `features` of an adapter enter: its end, its outputs, the features left over."""
        outputs = [x]
        for level, kind in enumerate(self.down_block_types):
            block, residual = down_block(self, level), features.pop(0) if features else None
            if "CrossAttn" in kind:
                x, more = block(x, temb, *conditions(kind, context, *masks), residual=residual)
            else:
                x, more = block(x, temb)
                if residual is not None:
                    x += residual
                    more[-1] = x
            outputs += more
        return x, outputs, features

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        check_levels(self)
        check_conditions(self)

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse options that do not fit together, and a sample of the wrong shape."""
        self.check_options()
        channels = self.in_channels - (4 if self.addition_embed_type == "image_hint" else 0)  # the hint has 4
        if len(shape) != 4 or shape[3] != channels:
            raise ValueError(f"sample must be (batch, height, width, {channels}); it is {shape}.")

    def example_inputs(self) -> tuple[Any, ...]:
        """A sample, a time, a token and whatever else the options ask for."""
        *inputs, labels, added = example_conditions(self)
        return (*inputs, labels, None, None, added)
