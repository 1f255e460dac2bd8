"""UNetControlNetXSModel: a U-Net that a narrow network beside it steers by a picture."""

import dataclasses
import re
from typing import TYPE_CHECKING, Annotated, Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from fdiff.messages import show
from fdiff.models.controlnet import ControlNetConditioningEmbedding
from fdiff.models.fields import Channels, Count, Depth, OneOf, Pixels, Widths, between, some
from fdiff.models.layers.checks import at, check_blocks, check_groups, check_lengths, check_sizes, require
from fdiff.models.layers.conditions import Added, given, zeros
from fdiff.models.layers.controlnet_xs_blocks import (
    JointDownBlock2D,
    JointMidBlock2D,
    JointUpBlock2D,
    Side,
    zero_conv,
)
from fdiff.models.layers.embeddings import TimestepEmbedding, sinusoidal
from fdiff.models.layers.linear import Conv
from fdiff.models.layers.norm import GroupNorm
from fdiff.models.layers.unet_2d_condition_blocks import conditions, score_mask
from fdiff.models.model import Model
from fdiff.models.unet_2d_condition import UNet2DConditionModel

if TYPE_CHECKING:
    from fdiff.models.controlnet_xs_adapter import ControlNetXSAdapter

DOWN = ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")
UP = ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")
BETWEEN = "ctrl_to_base|base_to_ctrl|control_to_base"  # the layers from one network to the other
SHARED = (  # options that a U-Net gives to the joint network as they are
    "sample_size",
    "down_block_types",
    "up_block_types",
    "block_out_channels",
    "norm_num_groups",
    "cross_attention_dim",
    "transformer_layers_per_block",
    "addition_embed_type",
    "addition_time_embed_dim",
    "upcast_attention",
    "use_linear_projection",
    "time_cond_proj_dim",
    "projection_class_embeddings_input_dim",
)


class UNetControlNetXSModel(Model):
    """A U-Net of Stable Diffusion or SDXL and its ControlNetXSAdapter as one network (Zavadski et al. 2023).

    sample (b, h, w, 4), and `controlnet_cond` (b, 8 h, 8 w, ctrl_conditioning_channels) in [0, 1], the picture that
    steers -> (b, h, w, 4). The other arguments are those of UNet2DConditionModel. What goes from the adapter to the
    U-Net is multiplied by `conditioning_scale`; where `apply_control` is false, nothing does.

        unet, params = UNetControlNetXSModel.from_unet(unet, unet_params, adapter, adapter_params)
        eps = unet.apply({"params": params}, latents, t, tokens, picture)

    As in the Hub's code, the norms of the U-Net's residual blocks add 1e-6 here where they add 1e-5 in the U-Net alone.
    """

    sample_size: Pixels | None = 96
    down_block_types: tuple[str, ...] = DOWN
    up_block_types: tuple[str, ...] = UP
    block_out_channels: Widths = (320, 640, 1280, 1280)
    norm_num_groups: Count = 32
    cross_attention_dim: Count | tuple[Count, ...] = 1024
    transformer_layers_per_block: Depth | tuple[Depth | tuple[Depth, ...], ...] = 1
    num_attention_heads: Count | tuple[Count, ...] = 8
    addition_embed_type: str | None = None
    addition_time_embed_dim: Count | None = None
    upcast_attention: bool = True  # the softmax and its input are float32 whatever this says
    use_linear_projection: bool = True
    time_cond_proj_dim: Count | None = None
    projection_class_embeddings_input_dim: Count | None = None
    time_embedding_mix: Annotated[float, between(0, 1)] = 1.0
    ctrl_conditioning_channels: Channels = 3
    ctrl_conditioning_embedding_out_channels: Annotated[tuple[Count, ...], some(5)] = (16, 32, 96, 256)
    ctrl_conditioning_channel_order: Annotated[str, OneOf(("rgb", "bgr"))] = "rgb"
    ctrl_learn_time_embedding: bool = False
    ctrl_block_out_channels: Widths = (4, 8, 16, 16)
    ctrl_num_attention_heads: Count | tuple[Count, ...] = 4
    ctrl_max_norm_num_groups: Count = 32

    @nn.compact
    def __call__(
        self,
        sample: jax.Array,
        timestep: jax.Array | float,
        encoder_hidden_states: jax.Array,
        controlnet_cond: jax.Array,
        conditioning_scale: jax.Array | float = 1.0,
        attention_mask: jax.Array | None = None,
        added_cond_kwargs: Added | None = None,
        apply_control: jax.Array | bool = True,
    ) -> jax.Array:
        self.check_options()
        levels = len(self.block_out_channels)
        t = jnp.broadcast_to(jnp.asarray(timestep), sample.shape[:1])
        temb = self.embed(t, added_cond_kwargs or {}, apply_control)
        context = conditions(None, encoder_hidden_states, None, score_mask(attention_mask))
        picture = controlnet_cond if self.ctrl_conditioning_channel_order == "rgb" else controlnet_cond[..., ::-1]
        embed_picture = ControlNetConditioningEmbedding(
            self.ctrl_block_out_channels[0],
            self.ctrl_conditioning_embedding_out_channels,
            name="controlnet_cond_embedding",
        )

        base = Conv(self.block_out_channels[0], name="base_conv_in")(sample)
        control = Conv(self.ctrl_block_out_channels[0], name="ctrl_conv_in")(sample) + embed_picture(picture)
        strength = jnp.where(apply_control, conditioning_scale, 0.0).astype(base.dtype)
        base += strength * zero_conv(base.shape[-1], "control_to_base_for_conv_in")(control)
        outputs = [(base, control)]
        for level, kind in enumerate(self.down_block_types):
            down = JointDownBlock2D(
                *self.sides(level, kind), downsample=level < levels - 1, name=f"down_blocks.{level}"
            )
            outputs += down(*outputs[-1], temb, strength, *context)
        mid = JointMidBlock2D(*self.sides(levels - 1, "CrossAttn"), name="mid_block")
        x = mid(*outputs[-1], temb, strength, *context)
        for i, kind in enumerate(self.up_block_types):
            skips = [outputs.pop() for _ in range(3)]
            size = (outputs[-1][0].shape[1], outputs[-1][0].shape[2]) if outputs else None
            up = JointUpBlock2D(self.sides(levels - 1 - i, kind)[0], upsample=i < levels - 1, name=f"up_blocks.{i}")
            x = up(x, skips, temb, strength, *context, size=size)
        x = nn.silu(GroupNorm(self.norm_num_groups, name="base_conv_norm_out")(x))
        return Conv(4, name="base_conv_out")(x)

    def embed(self, t: jax.Array, added: Added, apply_control: jax.Array | bool) -> jax.Array:
        """The vectors (b, d) that residual blocks see: of the time and, for SDXL, of the sizes and the text."""
        features = 4 * self.block_out_channels[0]
        waves = sinusoidal(t, self.block_out_channels[0], flip_sin_to_cos=True, freq_shift=0)
        base = TimestepEmbedding(features, cond_proj_dim=self.time_cond_proj_dim, name="base_time_embedding")
        temb = base(waves)
        if self.ctrl_learn_time_embedding:
            share = self.time_embedding_mix**0.3
            mixed = share * TimestepEmbedding(features, name="ctrl_time_embedding")(waves) + (1 - share) * temb
            temb = jnp.where(apply_control, mixed, temb)
        if self.addition_embed_type is None:
            return temb
        width: Any = self.addition_time_embed_dim
        text, times = (given(added, name, "addition_embed_type 'text_time'") for name in ("text_embeds", "time_ids"))
        times = sinusoidal(times.reshape(-1), width, flip_sin_to_cos=True, freq_shift=0)
        both = jnp.concatenate([text, times.reshape(text.shape[0], -1)], axis=-1)
        return temb + TimestepEmbedding(features, name="base_add_embedding")(both)

    def sides(self, level: int, kind: str) -> tuple[Side, Side]:
        """The base and the control network at one level, counted from the top."""
        depth = at(self.transformer_layers_per_block, level)
        depths = depth if isinstance(depth, tuple) else (depth,) * 3
        base = self.block_out_channels, self.num_attention_heads, self.norm_num_groups
        control = self.ctrl_block_out_channels, self.ctrl_num_attention_heads, self.ctrl_max_norm_num_groups
        first, second = (
            Side(
                channels[level],
                at(heads, level) if "CrossAttn" in kind else None,
                depths,
                groups,
                self.use_linear_projection,
            )
            for channels, heads, groups in (base, control)
        )
        return first, second

    def check_options(self) -> None:
        """Refuse options that do not fit together, or that no such network has."""
        if self.addition_embed_type not in (None, "text_time"):
            kind = self.addition_embed_type
            raise ValueError(f"addition_embed_type {show(kind)} is unknown here; use text_time or null.")
        mix, learn = self.time_embedding_mix, self.ctrl_learn_time_embedding
        if mix < 1 and not learn:
            raise ValueError(f"time_embedding_mix {mix} must be 1, or from 0 to 1 with ctrl_learn_time_embedding.")
        for option, kinds in (("down_block_types", DOWN), ("up_block_types", UP)):
            unknown = sorted(set(getattr(self, option)) - set(kinds))
            if unknown:
                raise ValueError(
                    f"{option} {show(unknown[0])} is unknown here; choose from {kinds[0]} and {kinds[-1]}."
                )
        check_lengths(self, "ctrl_block_out_channels", "ctrl_num_attention_heads")
        check_groups("norm_num_groups", self.norm_num_groups, self.block_out_channels)
        check_sizes(self)
        blocks = 0
        levels = len(self.block_out_channels)
        ways = [*enumerate(self.down_block_types), (levels - 1, "CrossAttn")]
        for level, kind in [*ways, *((levels - 1 - i, kind) for i, kind in enumerate(self.up_block_types))]:
            for side in self.sides(level, kind):
                if side.heads is not None:
                    split = side.channels % side.heads == 0
                    cure = "choose a divisor as num_attention_heads"
                    require(split, f"{side.channels} channels cannot be split into {side.heads} heads; {cure}.")
                    require(len(side.depths) >= 3, f"transformer_layers_per_block has {side.depths} for 3 layers.")
                    blocks += sum(side.depths[:3])
        check_blocks(blocks)

    def example_inputs(self) -> tuple[Any, ...]:
        """A sample of one number at the bottom, a time, a token and a picture."""
        side = 2 ** (len(self.block_out_channels) - 1)
        factor = 2 ** (len(self.ctrl_conditioning_embedding_out_channels) - 1)
        width = at(self.cross_attention_dim, 0)
        picture = zeros(1, factor * side, factor * side, self.ctrl_conditioning_channels)
        added = None
        if self.addition_embed_type == "text_time":
            both: Any = self.projection_class_embeddings_input_dim
            added = {"text_embeds": zeros(1, both - (self.addition_time_embed_dim or 0)), "time_ids": zeros(1, 1)}
        return zeros(1, side, side, 4), np.ones(1, np.int32), zeros(1, 1, width), picture, 1.0, None, added

    @classmethod
    def from_unet(
        cls, unet: UNet2DConditionModel, params: Any, adapter: "ControlNetXSAdapter", adapter_params: Any
    ) -> tuple[Self, dict[str, Any]]:
        """The network that a U-Net and an adapter make, and its parameters.

        Raises ValueError for a U-Net with options that the joint network has not, and for an adapter of another one.
        """
        shared = {name: getattr(unet, name) for name in SHARED}
        plain = UNet2DConditionModel(**shared, attention_head_dim=unet.attention_head_dim)
        for field in dataclasses.fields(unet):
            if field.name in ("parent", "name", "dropout", "mid_block_only_cross_attention"):
                continue
            value, needed = getattr(unet, field.name), getattr(plain, field.name)
            if value != needed:
                raise ValueError(
                    f"A ControlNetXSAdapter steers U-Nets whose {field.name} is {show(needed)}, "
                    f"not {show(value)}; use another."
                )
        levels = adapter.base_block_out_channels, adapter.down_block_types
        if levels != (unet.block_out_channels, unet.down_block_types):
            raise ValueError(
                f"The ControlNetXSAdapter is for a U-Net with {levels[0]} channels in {levels[1]}, this one has "
                f"{unet.block_out_channels} in {unet.down_block_types}; use the adapter that was trained for it."
            )
        model = cls(**shared, num_attention_heads=unet.attention_head_dim, **adapter.control_options())
        sources = {"unet": flatten_dict(params, sep="/"), "adapter": flatten_dict(adapter_params, sep="/")}
        paths = {path: origin(path) for path in flatten_dict(model.shapes(), sep="/")}
        return model, unflatten_dict({path: sources[owner][name] for path, (owner, name) in paths.items()}, sep="/")


def origin(path: str) -> tuple[str, str]:
    """Whose a parameter of the joint network is, "unet" or "adapter", and its path there; "/" joins the parts."""
    if re.search(f"{BETWEEN}|^controlnet_cond", path):
        return "adapter", path.replace("up_blocks", "up_connections")
    if "ctrl_" in path:
        return "adapter", path.replace("ctrl_", "")
    return "unet", path.replace("base_midblock/", "").replace("base_", "").replace("samplers/", "samplers.0/")
