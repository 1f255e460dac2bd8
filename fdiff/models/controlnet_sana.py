"""SanaControlNetModel: a picture that steers Sana."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Layers
from fdiff.models.layers.linear import Linear
from fdiff.models.layers.repeated import all_repeated
from fdiff.models.transformer_sana import SanaModel


class SanaControlNetModel(SanaModel):
    """The first blocks of Sana's transformer, which see a further picture; what they say is added to the transformer.

    hidden_states and controlnet_cond (b, h, w, in_channels) are latents, the latter those of the picture that steers;
    encoder_hidden_states (b, m, caption_channels) is a text, encoder_attention_mask (b, m) 0 where it is none.
    -> num_layers arrays (b, h, w, c), each times conditioning_scale.
    """

    num_layers: Layers = 7

    @nn.compact
    def __call__(
        self,
        hidden_states: jax.Array,
        encoder_hidden_states: jax.Array,
        timestep: jax.Array | float,
        encoder_attention_mask: jax.Array | None = None,
        controlnet_cond: jax.Array | None = None,
        conditioning_scale: jax.Array | float = 1.0,
    ) -> tuple[jax.Array, ...]:
        seen = None if controlnet_cond is None else controlnet_cond.shape
        if seen != hidden_states.shape:
            raise ValueError(f"controlnet_cond must be shaped like hidden_states, {hidden_states.shape}; it is {seen}.")
        x, text, mask, numbers, _ = self.begun(
            hidden_states, encoder_hidden_states, timestep, encoder_attention_mask, controlnet_cond
        )
        states = all_repeated(self, self.num_layers, self.block, lambda block, x, i: block(x, text, mask, numbers), x)
        said = [Linear(self.width, name=f"controlnet_blocks.{i}")(one) for i, one in enumerate(states)]
        return tuple(one * jnp.asarray(conditioning_scale, one.dtype) for one in said)

    def example_inputs(self) -> tuple[np.ndarray, ...]:
        """One patch, one token and a time, and a patch that steers."""
        inputs = super().example_inputs()
        return *inputs, inputs[0]
