"""SD3ControlNetModel: a picture that steers Stable Diffusion 3 and 3.5."""

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Channels, Count, Layers, OneOf, Pixels, between
from fdiff.models.layers.attention import Attention
from fdiff.models.layers.checks import require
from fdiff.models.layers.feed_forward import FeedForward
from fdiff.models.layers.linear import Conv, Linear
from fdiff.models.layers.modulation import Modulation, modulated
from fdiff.models.layers.repeated import all_repeated
from fdiff.models.model import Model
from fdiff.models.transformer_sd3 import JointTransformerBlock, Norm, Patches, TimeAndText, check_joint


class SD3ControlNetModel(Model):
    """The first blocks of a transformer, which see a further picture; what they say is added to the transformer.

    hidden_states (b, h, w, in_channels) are latents, or patches (b, n, width) as the transformer's own first layer
    makes them where there is no use_pos_embed; controlnet_cond (b, h, w, in_channels + extra_conditioning_channels)
    are those of the picture that steers; encoder_hidden_states (b, m, joint_attention_dim) is a text, None where
    joint_attention_dim is; pooled_projections (b, pooled_projection_dim), `timestep` (b,) from 1000 to 0.
    -> num_layers arrays (b, n, width), each times conditioning_scale.
    """

    sample_size: Pixels = 128
    patch_size: Annotated[int, between(1, 64)] = 2
    in_channels: Channels = 16
    num_layers: Layers = 18
    attention_head_dim: Count = 64
    num_attention_heads: Count = 18
    joint_attention_dim: Count | None = 4096
    caption_projection_dim: Count = 1152
    pooled_projection_dim: Count = 2048
    out_channels: Channels | None = 16  # which nothing reads
    pos_embed_max_size: Annotated[int, between(1, 1024)] = 96
    extra_conditioning_channels: Annotated[int, between(0, 1024)] = 0
    dual_attention_layers: tuple[Annotated[int, between(0, 99)], ...] = ()
    qk_norm: Norm | None = None
    pos_embed_type: Annotated[str, OneOf(("sincos",))] | None = "sincos"
    use_pos_embed: bool = True
    force_zeros_for_pooled_projection: bool = True  # whether pipelines tell it zeros in place of the pooled text

    @nn.compact
    def __call__(
        self,
        hidden_states: jax.Array,
        controlnet_cond: jax.Array,
        encoder_hidden_states: jax.Array | None,
        pooled_projections: jax.Array,
        timestep: jax.Array | float,
        conditioning_scale: jax.Array | float = 1.0,
    ) -> tuple[jax.Array, ...]:
        self.check_options()
        self.check(hidden_states.shape, encoder_hidden_states)
        x, size = hidden_states, self.patch_size
        if self.use_pos_embed:
            most = None if self.pos_embed_type is None else self.pos_embed_max_size
            x = Patches(self.width, size, most, self.base, name="pos_embed")(x)
        t = jnp.broadcast_to(timestep, x.shape[:1])
        temb = TimeAndText(self.width, name="time_text_embed")(t, pooled_projections)
        x = x + Conv(self.width, size, size, 0, name="pos_embed_input.proj")(controlnet_cond).reshape(x.shape)
        y = encoder_hidden_states
        if y is not None:
            y = Linear(self.caption_projection_dim, name="context_embedder")(y)

        def make(i: int) -> Any:
            name = f"transformer_blocks.{i}"
            if y is None:
                return SD3SingleTransformerBlock(self.num_attention_heads, name=name)
            return JointTransformerBlock(
                self.num_attention_heads, self.qk_norm, i in self.dual_attention_layers, name=name
            )

        def step(block: Any, both: tuple[jax.Array, Any], i: Any) -> tuple[jax.Array, Any]:
            x, y = both
            return (block(x, temb), None) if y is None else block(x, y, temb)

        states = all_repeated(self, self.num_layers, make, step, (x, y))
        said = [Linear(self.width, name=f"controlnet_blocks.{i}")(one) for i, (one, _) in enumerate(states)]
        return tuple(one * jnp.asarray(conditioning_scale, one.dtype) for one in said)

    @property
    def width(self) -> int:
        """Features of a patch."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def base(self) -> int:
        """Patches along a side of the pictures that it was first trained on."""
        return self.sample_size // self.patch_size

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        check_joint(self)

    def check(self, shape: tuple[int, ...], text: jax.Array | None) -> None:
        """Refuse latents where it takes patches, and a text where it reads none, or the other way round."""
        axes = 4 if self.use_pos_embed else 3
        wanted = "(batch, height, width, channels)" if self.use_pos_embed else "(batch, patches, features)"
        require(len(shape) == axes, f"hidden_states must be {wanted}, see use_pos_embed; they are {shape}.")
        verb = "takes no" if self.joint_attention_dim is None else "needs"
        fits = (text is None) == (self.joint_attention_dim is None)
        require(fits, f"This SD3ControlNetModel {verb} encoder_hidden_states; see joint_attention_dim.")

    def example_inputs(self) -> tuple[Any, ...]:
        """One patch and one token."""
        size, text = self.patch_size, None
        x = np.zeros((1, size, size, self.in_channels) if self.use_pos_embed else (1, 1, self.width), np.float32)
        seen = np.zeros((1, size, size, self.in_channels + self.extra_conditioning_channels), np.float32)
        if self.joint_attention_dim is not None:
            text = np.zeros((1, 1, self.joint_attention_dim), np.float32)
        return x, seen, text, np.zeros((1, self.pooled_projection_dim), np.float32), np.zeros(1, np.float32)


class SD3SingleTransformerBlock(nn.Module):
    """Patches (b, n, c) attend to each other, without a text."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array, temb: jax.Array) -> jax.Array:
        width = x.shape[-1]
        a = Modulation(6, width, name="norm1")(temb)
        x = x + a[2] * Attention(self.heads, width // self.heads, True, name="attn")(modulated(x, a[0], a[1]))
        return x + a[5] * FeedForward(activation_fn="gelu-approximate", name="ff")(modulated(x, a[3], a[4]))
