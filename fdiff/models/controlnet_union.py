"""ControlNetUnionModel: one ControlNet for many kinds of pictures, several at once."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.controlnet import ControlNetBase, ControlNetOutput
from fdiff.models.fields import Count, Layers, some
from fdiff.models.layers.activations import quick_gelu
from fdiff.models.layers.attention import attention, merge_heads, split_heads
from fdiff.models.layers.checks import require
from fdiff.models.layers.conditions import Added, example_conditions, sinusoid, time_features, zeros
from fdiff.models.layers.embeddings import TimestepEmbedding
from fdiff.models.layers.linear import Conv, Linear
from fdiff.models.layers.norm import LayerNorm
from fdiff.models.layers.parameter import parameter
from fdiff.models.layers.unet_2d_condition_blocks import score_mask


class ControlNetUnionModel(ControlNetBase):
    """Latents, their time, a text and n pictures to residuals for a U-Net (xinsir, ControlNet++, 2024).

    `controlnet_cond` are n pictures (b, 8 h, 8 w, conditioning_channels) in [0, 1], `control_type_idx` (n,) says
    of which kind each is (openpose, depth, edges, ...), and `control_type` (b, num_control_type) is 1 for the kinds
    that are there. Each picture's features enter with its own `conditioning_scale`; that of a single picture
    multiplies the residuals instead, as it does `from_multi`, for one of several networks. The other arguments are
    those of ControlNetModel.

    The transformer that weighs the pictures attends along the batch, as it was trained: what comes out for one
    sample depends on the others, so the halves of classifier-free guidance belong into one call.
    """

    conditioning_embedding_out_channels: Annotated[tuple[Count, ...], some(5)] = (48, 96, 192, 384)
    num_control_type: Count = 6
    num_trans_channel: Count = 320
    num_trans_head: Count = 8
    num_trans_layer: Layers = 1
    num_proj_channel: Count = 320

    mid_block_type: ClassVar[str] = "UNetMidBlock2DCrossAttn"

    @nn.compact
    def __call__(
        self,
        sample: jax.Array,
        timestep: jax.Array | float,
        encoder_hidden_states: jax.Array,
        controlnet_cond: Sequence[jax.Array],
        control_type: jax.Array,
        control_type_idx: jax.Array | Sequence[int],
        conditioning_scale: jax.Array | float | Sequence[float] = 1.0,
        class_labels: jax.Array | None = None,
        timestep_cond: jax.Array | None = None,
        attention_mask: jax.Array | None = None,
        added_cond_kwargs: Added | None = None,
        from_multi: bool = False,
        guess_mode: bool = False,
    ) -> ControlNetOutput:
        kinds = jnp.asarray(control_type_idx)
        self.check(kinds.shape, len(controlnet_cond), control_type.shape)
        t = jnp.broadcast_to(jnp.asarray(timestep), sample.shape[:1])
        temb, context = self.told(t, encoder_hidden_states, class_labels, timestep_cond, added_cond_kwargs or {})
        temb += self.embed_kinds(control_type)

        x = Conv(self.block_out_channels[0], name="conv_in")(sample)
        scales = jnp.broadcast_to(jnp.asarray(conditioning_scale, x.dtype), kinds.shape)
        last = from_multi or len(controlnet_cond) == 1  # whether the residuals are scaled, not the pictures
        x += self.fuse(x, controlnet_cond, kinds, jnp.ones_like(scales) if last else scales)
        residuals = self.descend(x, temb, context, score_mask(attention_mask))
        return self.output(residuals, scales[0] if last else 1.0, guess_mode)

    def embed_kinds(self, control_type: jax.Array) -> jax.Array:
        """Which kinds of pictures there are, as vectors beside those of the time: (b, num_control_type) -> (b, d)."""
        width: Any = self.addition_time_embed_dim
        features = sinusoid(self, width)(control_type.reshape(-1)).reshape(control_type.shape[0], -1)
        return TimestepEmbedding(time_features(self), name="control_add_embedding")(features)

    def fuse(self, x: jax.Array, pictures: Sequence[jax.Array], kinds: jax.Array, scales: jax.Array) -> jax.Array:
        """What the pictures add to the features x (b, h, w, c) of the latents."""
        shape = (self.num_control_type, self.num_trans_channel)
        table = parameter(self, "task_embedding", nn.initializers.normal(self.num_trans_channel**0.5), shape)
        embed_picture = self.embed_picture()
        features = jnp.stack([embed_picture(picture) for picture in pictures])
        tokens = scales[:, None, None] * (features.mean((2, 3)) + table[kinds][:, None])
        tokens = jnp.concatenate([tokens, x.mean((1, 2))[None]]).swapaxes(0, 1)
        for i in range(self.num_trans_layer):
            block = ResidualAttentionBlock(self.num_trans_head, name=f"transformer_layes.{i}")  # so in every checkpoint
            tokens = block(tokens)
        shifts = Linear(self.num_proj_channel, name="spatial_ch_projs")(tokens[:, :-1]).swapaxes(0, 1)
        return jnp.einsum("n,nbhwc->bhwc", scales, features + shifts[:, :, None, None])

    def check_options(self) -> None:
        """Refuse options that do not fit together, or that no such network has."""
        super().check_options()
        if self.controlnet_conditioning_channel_order != "rgb" or self.encoder_hid_dim_type is not None:
            raise ValueError(
                "controlnet_conditioning_channel_order must be rgb and encoder_hid_dim_type null in a "
                "ControlNetUnionModel; correct its config."
            )
        if self.addition_time_embed_dim is None:
            raise ValueError("A ControlNetUnionModel needs addition_time_embed_dim; set it in its config.")
        if {self.num_trans_channel, self.num_proj_channel} != {self.block_out_channels[0]}:
            raise ValueError(
                f"num_trans_channel {self.num_trans_channel} and num_proj_channel {self.num_proj_channel} must be the "
                f"first of block_out_channels, {self.block_out_channels[0]}; correct the config."
            )
        heads, width = self.num_trans_head, self.num_trans_channel
        require(width % heads == 0, f"num_trans_head {heads} must divide num_trans_channel {width}.")

    def check(self, kinds: tuple[int, ...], pictures: int, control_type: tuple[int, ...]) -> None:
        """Refuse kinds that do not fit the pictures."""
        self.check_options()
        if kinds != (pictures,):
            raise ValueError(f"control_type_idx has shape {kinds} for {pictures} pictures; give one number for each.")
        if len(control_type) != 2 or control_type[1] != self.num_control_type:
            raise ValueError(f"control_type must be (batch, {self.num_control_type}); it is {control_type}.")

    def example_inputs(self) -> tuple[Any, ...]:
        """The U-Net's, and a picture of the first kind."""
        sample, time, tokens, labels, added = example_conditions(self)
        kinds = zeros(1, self.num_control_type), np.zeros(1, np.int32)
        return sample, time, tokens, [self.example_picture(sample)], *kinds, 1.0, labels, None, None, added


class ResidualAttentionBlock(nn.Module):
    """A transformer block of CLIP's over the first axis, for each of the second: (b, n, c) -> (b, n, c)."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x += MultiheadAttention(self.heads, name="attn")(LayerNorm(name="ln_1")(x))
        y = quick_gelu(Linear(4 * x.shape[-1], name="mlp.c_fc")(LayerNorm(name="ln_2")(x)))
        return x + Linear(x.shape[-1], name="mlp.c_proj")(y)


class MultiheadAttention(nn.Module):
    """torch's module of that name: self-attention along the first axis of (b, n, c)."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        weight = parameter(self, "in_proj_weight", nn.initializers.xavier_uniform(), (3 * width, width))
        bias = parameter(self, "in_proj_bias", nn.initializers.zeros, (3 * width,))
        x = jnp.dot(x.swapaxes(0, 1).astype(weight.dtype), weight.T) + bias
        q, k, v = (split_heads(part, self.heads) for part in jnp.split(x, 3, axis=-1))
        return Linear(width, name="out_proj")(merge_heads(attention(q, k, v))).swapaxes(0, 1)
