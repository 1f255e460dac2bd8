"""FluxControlNetModel: a picture that steers FLUX.1, for one kind of pictures or for several (union)."""

from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.controlnet import ControlNetConditioningEmbedding
from fdiff.models.fields import Count, Depth, Layers, between
from fdiff.models.layers.checks import check_axes, require
from fdiff.models.layers.joint_attention import check_sequence
from fdiff.models.layers.linear import Embed, Linear
from fdiff.models.layers.patches import packed
from fdiff.models.layers.repeated import all_repeated
from fdiff.models.layers.rotary import axes_angles
from fdiff.models.model import Model
from fdiff.models.transformer_flux import (
    THETA,
    FluxSingleTransformerBlock,
    FluxTransformerBlock,
    apart,
    told,
)

HINT_CHANNELS = (16, 16, 16, 16)


class FluxControlNetOutput(NamedTuple):
    """What is added behind the joint blocks of a transformer, and behind the single ones: arrays (b, n, c)."""

    controlnet_block_samples: tuple[jax.Array, ...]
    controlnet_single_block_samples: tuple[jax.Array, ...]


class FluxControlNetModel(Model):
    """The first blocks of a transformer, which see a further picture; what they say is added to the transformer.

    controlnet_cond is the picture that steers: squares of its latents (b, n, in_channels) or, with
    conditioning_embedding_channels, itself, (b, H, W, 3). controlnet_mode (b,) says what kind it is, to a union of
    num_mode kinds. The others as for FluxTransformer2DModel. All that comes out is times conditioning_scale.
    """

    patch_size: Annotated[int, between(1, 64)] = 1
    in_channels: Count = 64
    num_layers: Layers = 19
    num_single_layers: Depth = 38
    attention_head_dim: Count = 128
    num_attention_heads: Count = 24
    joint_attention_dim: Count = 4096
    pooled_projection_dim: Count = 768
    guidance_embeds: bool = False
    axes_dims_rope: tuple[Count, Count, Count] = (16, 56, 56)
    num_mode: Count | None = None
    conditioning_embedding_channels: Count | None = None

    @nn.compact
    def __call__(
        self,
        hidden_states: jax.Array,
        controlnet_cond: jax.Array,
        encoder_hidden_states: jax.Array,
        pooled_projections: jax.Array,
        timestep: jax.Array | float,
        img_ids: jax.Array,
        txt_ids: jax.Array,
        guidance: jax.Array | float | None = None,
        controlnet_mode: jax.Array | None = None,
        conditioning_scale: jax.Array | float = 1.0,
    ) -> FluxControlNetOutput:
        self.check_options()
        check_sequence("hidden_states", hidden_states.shape, self.in_channels, img_ids.shape, 3)
        check_sequence(
            "encoder_hidden_states", encoder_hidden_states.shape, self.joint_attention_dim, txt_ids.shape, 3
        )
        verb = "takes no" if self.num_mode is None else "needs a"
        require((controlnet_mode is None) == (self.num_mode is None), f"This FluxControlNetModel {verb} "
                "controlnet_mode; see num_mode.")  # fmt: skip
        width = self.num_attention_heads * self.attention_head_dim
        seen = controlnet_cond
        if self.conditioning_embedding_channels is not None:
            features = self.conditioning_embedding_channels
            seen = ControlNetConditioningEmbedding(features, HINT_CHANNELS, name="input_hint_block")(seen)
            seen = packed(seen, self.patch_size)
        x = Linear(width, name="x_embedder")(hidden_states) + Linear(width, name="controlnet_x_embedder")(seen)
        temb = told(self, width, hidden_states.shape[:1], timestep, guidance, pooled_projections)
        y = Linear(width, name="context_embedder")(encoder_hidden_states)
        if controlnet_mode is not None and self.num_mode is not None:
            kind = Embed(self.num_mode, width, name="controlnet_mode_embedder")(controlnet_mode)
            y = jnp.concatenate([kind[:, None].astype(y.dtype), y], axis=1)
            txt_ids = jnp.concatenate([txt_ids[:1], txt_ids])
        angles = axes_angles(jnp.concatenate([txt_ids, img_ids]), self.axes_dims_rope, THETA)
        heads, length = self.num_attention_heads, y.shape[1]
        joint = all_repeated(
            self, self.num_layers, lambda i: FluxTransformerBlock(heads, name=f"transformer_blocks.{i}"),
            lambda block, both, i: block(*both, angles, temb), (x, y),
        )  # fmt: skip
        single = all_repeated(
            self, self.num_single_layers,
            lambda i: FluxSingleTransformerBlock(heads, name=f"single_transformer_blocks.{i}"),
            lambda block, both, i: apart(block(jnp.concatenate(both[::-1], axis=1), angles, temb), length),
            joint[-1] if joint else (x, y),
        )  # fmt: skip
        said = {"controlnet_blocks": joint, "controlnet_single_blocks": single}
        found = FluxControlNetOutput(*(
            tuple(Linear(width, name=f"{name}.{i}")(one) for i, (one, _) in enumerate(states))
            for name, states in said.items()
        ))  # fmt: skip
        return jax.tree.map(lambda one: one * jnp.asarray(conditioning_scale, one.dtype), found)

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        check_axes(self)
        hint, size = self.conditioning_embedding_channels, self.patch_size
        if hint is not None:
            good = hint * size**2 == self.in_channels
            require(good, f"conditioning_embedding_channels {hint} in squares of {size} x {size} must make up "
                          f"in_channels, {self.in_channels}.")  # fmt: skip

    def example_inputs(self) -> tuple[Any, ...]:
        """One token of either kind."""
        x, y = (np.zeros((1, 1, width), np.float32) for width in (self.in_channels, self.joint_attention_dim))
        pooled, ids = np.zeros((1, self.pooled_projection_dim), np.float32), np.zeros((1, 3), np.float32)
        side = 8 * self.patch_size
        seen = x if self.conditioning_embedding_channels is None else np.zeros((1, side, side, 3), np.float32)
        guidance = np.zeros(1, np.float32) if self.guidance_embeds else None
        mode = None if self.num_mode is None else np.zeros(1, np.int32)
        return x, seen, y, pooled, np.zeros(1, np.float32), ids, ids, guidance, mode
