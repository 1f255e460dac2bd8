"""QwenImageControlNetModel: a picture that steers Qwen-Image."""

from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Count, Layers, between
from fdiff.models.layers.checks import check_axes
from fdiff.models.layers.linear import Linear
from fdiff.models.layers.norm import RMSNorm
from fdiff.models.layers.repeated import all_repeated
from fdiff.models.layers.rotary import axes_angles
from fdiff.models.model import Model
from fdiff.models.transformer_qwenimage import THETA, QwenImageTransformerBlock, places, seen, told


class QwenImageControlNetModel(Model):
    """The first blocks of a transformer, which see a further picture; what they say is added to the transformer.

    sample (b, h, w, in_channels), a square of latents in each place; controlnet_cond (b, h, w, in_channels +
    extra_condition_channels) are those of the picture that steers. The others as for QwenImageTransformer2DModel.
    -> num_layers arrays (b, h w, width), each times conditioning_scale.
    """

    # Of the transformer that it was made of, in whose config they are left.
    ignored_keys: ClassVar[tuple[str, ...]] = ("pooled_projection_dim", "guidance_embeds")

    patch_size: Annotated[int, between(1, 64)] = 2
    in_channels: Count = 64
    out_channels: Count | None = 16  # which nothing reads
    num_layers: Layers = 60
    attention_head_dim: Count = 128
    num_attention_heads: Count = 24
    joint_attention_dim: Count = 3584
    axes_dims_rope: tuple[Count, Count, Count] = (16, 56, 56)
    extra_condition_channels: Annotated[int, between(0, 1024)] = 0

    @nn.compact
    def __call__(
        self,
        sample: jax.Array,
        controlnet_cond: jax.Array,
        timestep: jax.Array | float,
        encoder_hidden_states: jax.Array,
        encoder_hidden_states_mask: jax.Array | None = None,
        conditioning_scale: jax.Array | float = 1.0,
    ) -> tuple[jax.Array, ...]:
        self.check(sample.shape, controlnet_cond.shape, encoder_hidden_states.shape)
        width, batch = self.num_attention_heads * self.attention_head_dim, len(sample)
        x = Linear(width, name="img_in")(sample) + Linear(width, name="controlnet_x_embedder")(controlnet_cond)
        x = x.reshape(batch, -1, width)
        temb = told(width, jnp.broadcast_to(jnp.asarray(timestep, jnp.float32), (batch,)))
        y = Linear(width, name="txt_in")(RMSNorm(name="txt_norm")(encoder_hidden_states))
        angles = axes_angles(places(y.shape[1], [sample.shape[1:3]]), self.axes_dims_rope, THETA)
        mask, heads = seen(encoder_hidden_states_mask, x.shape[:2]), self.num_attention_heads
        states = all_repeated(
            self, self.num_layers, lambda i: QwenImageTransformerBlock(heads, name=f"transformer_blocks.{i}"),
            lambda block, both, i: block(*both, angles, mask, temb, None, x.shape[1]), (x, y),
        )  # fmt: skip
        said = [Linear(width, name=f"controlnet_blocks.{i}")(one) for i, (one, _) in enumerate(states)]
        return tuple(one * jnp.asarray(conditioning_scale, one.dtype) for one in said)

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        check_axes(self)

    def check(self, x: tuple[int, ...], picture: tuple[int, ...], text: tuple[int, ...]) -> None:
        """Refuse options that do not fit together, and inputs that do not fit them."""
        self.check_options()
        if len(x) != 4 or x[3] != self.in_channels:
            raise ValueError(f"sample must be (batch, height, width, {self.in_channels}); it is {x}.")
        wanted = (*x[:3], self.in_channels + self.extra_condition_channels)
        if picture != wanted:
            raise ValueError(f"controlnet_cond must be {wanted}; it is {picture}.")
        if len(text) != 3 or text[2] != self.joint_attention_dim:
            raise ValueError(f"encoder_hidden_states must be (batch, number, {self.joint_attention_dim}); "
                             f"it is {text}.")

    def example_inputs(self) -> tuple[Any, ...]:
        """One square of latents, a time and one token."""
        x, seen = (
            np.zeros((1, 1, 1, self.in_channels + more), np.float32) for more in (0, self.extra_condition_channels)
        )
        return x, seen, np.zeros(1, np.float32), np.zeros((1, 1, self.joint_attention_dim), np.float32)
