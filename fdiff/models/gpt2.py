"""GPT2Model: the language model that goes on with what AudioLDM 2 is told."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Activation, Count, Epsilon, Layers
from fdiff.models.layers.activations import activation
from fdiff.models.layers.attention import attention, merge_heads, split_heads
from fdiff.models.layers.checks import require
from fdiff.models.layers.linear import Embed
from fdiff.models.layers.norm import LayerNorm
from fdiff.models.layers.parameter import parameter
from fdiff.models.model import Model


class GPT2Model(Model):
    """GPT-2 (Radford et al. 2019): embeddings (b, n, n_embd) -> the last hidden states, normalized, (b, n, n_embd).

    A token looks at those before it and, where attention_mask (b, n) is given, only at those that are not 0.
    """

    weights_name: ClassVar[str] = "model"
    model_type: ClassVar[str | None] = "gpt2"

    vocab_size: Count = 50257
    n_positions: Count = 1024
    n_embd: Count = 768
    n_layer: Layers = 12
    n_head: Count = 12
    n_inner: Count | None = None
    activation_function: Activation = "gelu_new"
    layer_norm_epsilon: Epsilon = 1e-5
    max_new_tokens: Count = 8

    @nn.compact
    def __call__(self, inputs_embeds: jax.Array, attention_mask: jax.Array | None = None) -> jax.Array:
        self.check_options()
        length = inputs_embeds.shape[1]
        if length > self.n_positions or inputs_embeds.shape[2] != self.n_embd:
            limits = f"(batch, at most {self.n_positions}, {self.n_embd})"
            raise ValueError(f"inputs_embeds must be {limits}; they are {inputs_embeds.shape}.")
        Embed(self.vocab_size, self.n_embd, name="wte")(jnp.zeros((1,), jnp.int32))  # which files hold, for words
        x = inputs_embeds + Embed(self.n_positions, self.n_embd, name="wpe")(jnp.arange(length))
        mask = jnp.tril(jnp.ones((1, 1, length, length), bool))
        if attention_mask is not None:
            mask &= (attention_mask != 0)[:, None, None]
        for i in range(self.n_layer):
            x = self.layer(f"h.{i}", x, mask)
        return self.norm("ln_f", x)

    def layer(self, name: str, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Self-attention and a feed-forward network, each on a normalized input and added to it: (b, n, c)."""
        width = self.n_embd
        qkv = Turned(3 * width, name=f"{name}.attn.c_attn")(self.norm(f"{name}.ln_1", x))
        q, k, v = (split_heads(part, self.n_head) for part in jnp.split(qkv, 3, axis=-1))
        x += Turned(width, name=f"{name}.attn.c_proj")(merge_heads(attention(q, k, v, mask)))
        y = Turned(self.n_inner or 4 * width, name=f"{name}.mlp.c_fc")(self.norm(f"{name}.ln_2", x))
        return x + Turned(width, name=f"{name}.mlp.c_proj")(activation(self.activation_function)(y))

    def norm(self, name: str, x: jax.Array) -> jax.Array:
        """Normalize the last axis."""
        return LayerNorm(self.layer_norm_epsilon, name=name)(x)

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        good = self.n_embd % self.n_head == 0
        require(good, f"n_head {self.n_head} must divide n_embd {self.n_embd}.")

    def example_inputs(self) -> tuple[Any, ...]:
        """One embedding."""
        return (np.zeros((1, 1, self.n_embd), np.float32),)


class Turned(nn.Module):
    """A linear map whose matrix the checkpoint holds as (in, out)."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        matrix = parameter(self, "weight", nn.initializers.normal(0.02), (x.shape[-1], self.features))
        bias = parameter(self, "bias", nn.initializers.zeros, (self.features,))
        return x.astype(matrix.dtype) @ matrix + bias
