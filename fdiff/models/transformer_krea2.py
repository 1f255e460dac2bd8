"""Krea2Transformer2DModel: the denoiser of Krea 2."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Count, Depth, Epsilon, Layers, Theta
from fdiff.models.layers.activations import gelu_tanh
from fdiff.models.layers.checks import check_axes, require
from fdiff.models.layers.embeddings import TimestepEmbedding, sinusoidal
from fdiff.models.layers.joint_attention import check_sequence
from fdiff.models.layers.linear import Linear
from fdiff.models.layers.norm import RMSNorm
from fdiff.models.layers.parameter import parameter
from fdiff.models.layers.repeated import repeated
from fdiff.models.layers.rotary import axes_angles
from fdiff.models.layers.self_attention import SelfAttention
from fdiff.models.model import Model

TIME_SCALE = 1000.0
OFFSET = 1.0  # what the checkpoint leaves out of the scales of all norms


class Krea2Transformer2DModel(Model):
    """A transformer over the tokens of a text and of a picture in one sequence (Krea 2026).

    hidden_states (b, n, in_channels) are patches of latents; encoder_hidden_states (b, m, num_text_layers,
    text_hidden_dim) are a text as several layers of a language model have it, of which, where encoder_attention_mask
    (b, m) is given, tokens that are 0 are none. `timestep` (b,) is sigma, from 1, noise, to 0; img_ids (n, 3) and
    txt_ids (m, 3) say where each token is: time, row, column. -> (b, n, in_channels).

        velocity = transformer.apply({"params": params}, latents, text, sigma, img_ids, txt_ids, mask)
    """

    in_channels: Count = 64
    num_layers: Layers = 28
    attention_head_dim: Count = 128
    num_attention_heads: Count = 48
    num_key_value_heads: Count = 12
    intermediate_size: Count = 16384
    timestep_embed_dim: Count = 256
    text_hidden_dim: Count = 2560
    num_text_layers: Layers = 12
    text_num_attention_heads: Count = 20
    text_num_key_value_heads: Count = 20
    text_intermediate_size: Count = 6912
    num_layerwise_text_blocks: Depth = 2
    num_refiner_text_blocks: Depth = 2
    axes_dims_rope: tuple[Count, Count, Count] = (32, 48, 48)
    rope_theta: Theta = 1000.0
    norm_eps: Epsilon = 1e-5

    @nn.compact
    def __call__(
        self,
        hidden_states: jax.Array,
        encoder_hidden_states: jax.Array,
        timestep: jax.Array | float,
        img_ids: jax.Array,
        txt_ids: jax.Array,
        encoder_attention_mask: jax.Array | None = None,
    ) -> jax.Array:
        self.check(hidden_states.shape, encoder_hidden_states.shape, img_ids.shape, txt_ids.shape)
        width, (batch, count, _) = self.num_attention_heads * self.attention_head_dim, hidden_states.shape
        t = TIME_SCALE * jnp.broadcast_to(jnp.asarray(timestep, jnp.float32), (batch,))
        waves = sinusoidal(t, self.timestep_embed_dim, flip_sin_to_cos=True, freq_shift=0)
        temb = TimestepEmbedding(width, "gelu_pytorch_tanh", name="time_embed")(waves)[:, None]
        modulation = Linear(6 * width, name="time_mod_proj")(gelu_tanh(temb))

        length, seen, text_seen = encoder_hidden_states.shape[1], None, None
        if encoder_attention_mask is not None:
            text_seen = (encoder_attention_mask != 0)[:, None, None]
            seen = jnp.pad(text_seen, ((0, 0), (0, 0), (0, 0), (0, count)), constant_values=True)
        text = RMSNorm(self.norm_eps, offset=OFFSET, name="txt_in.norm")(self.fused(encoder_hidden_states, text_seen))
        text = gelu_tanh(Linear(width, name="txt_in.linear_1")(text))
        both = [Linear(width, name="txt_in.linear_2")(text), Linear(width, name="img_in")(hidden_states)]
        x = jnp.concatenate(both, axis=1)
        angles = axes_angles(jnp.concatenate([txt_ids, img_ids]), self.axes_dims_rope, self.rope_theta)
        sizes = self.num_attention_heads, self.num_key_value_heads, self.intermediate_size, self.norm_eps
        x = repeated(
            self, self.num_layers, lambda i: Krea2Block(*sizes, name=f"transformer_blocks.{i}"),
            lambda block, x, i: block(x, angles, seen, modulation), x,
        )  # fmt: skip
        return Krea2FinalLayer(self.in_channels, self.norm_eps, name="final_layer")(x[:, length:], temb)

    def fused(self, states: jax.Array, seen: jax.Array | None) -> jax.Array:
        """The layers (b, m, layers, d) of a text as one (b, m, d): those of a token see each other, then its tokens."""
        batch, length, layers, width = states.shape
        x = states.reshape(batch * length, layers, width)
        x = self.read("layerwise_blocks", self.num_layerwise_text_blocks, x, None)
        x = x.reshape(states.shape).swapaxes(2, 3)
        x = Linear(1, False, name="text_fusion.projector")(x)[..., 0]
        return self.read("refiner_blocks", self.num_refiner_text_blocks, x, seen)

    def read(self, name: str, count: int, x: jax.Array, seen: jax.Array | None) -> jax.Array:
        """What so many blocks, of those that read the text, make of x."""
        heads, shared = self.text_num_attention_heads, self.text_num_key_value_heads
        sizes = heads, shared, self.text_intermediate_size, self.norm_eps
        return repeated(
            self, count, lambda i: Krea2Block(*sizes, name=f"text_fusion.{name}.{i}"),
            lambda block, x, i: block(x, mask=seen), x,
        )  # fmt: skip

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        check_axes(self)
        heads, text = self.text_num_attention_heads, self.text_hidden_dim
        require(text % heads == 0, f"text_num_attention_heads {heads} must divide text_hidden_dim {text}.")
        for kind in ("", "text_"):
            heads, shared = (getattr(self, f"{kind}num_{part}_heads") for part in ("attention", "key_value"))
            good = heads % shared == 0
            require(good, f"{kind}num_key_value_heads {shared} must divide {kind}num_attention_heads {heads}.")

    def check(
        self, x: tuple[int, ...], text: tuple[int, ...], img_ids: tuple[int, ...], txt_ids: tuple[int, ...]
    ) -> None:
        """Refuse options that do not fit together, and inputs that do not fit them."""
        self.check_options()
        check_sequence("hidden_states", x, self.in_channels, img_ids, 3)
        wanted = self.num_text_layers, self.text_hidden_dim
        if len(text) != 4 or text[2:] != wanted or txt_ids != (text[1], 3):
            raise ValueError(f"encoder_hidden_states must be (batch, number, {wanted[0]}, {wanted[1]}), with ids "
                             f"(number, 3); they are {text} and {txt_ids}.")

    def example_inputs(self) -> tuple[Any, ...]:
        """One token of either kind."""
        text = np.zeros((1, 1, self.num_text_layers, self.text_hidden_dim), np.float32)
        ids = np.zeros((1, 3), np.float32)
        return np.zeros((1, 1, self.in_channels), np.float32), text, np.zeros(1, np.float32), ids, ids


class Krea2Block(nn.Module):
    """Gated self-attention and a gated feed-forward network, each on a normalized input and added to it: (b, n, c).

    With modulation (b, 1, 6 c), to which the block adds a table of its own, both are scaled, shifted and gated.
    """

    heads: int
    kv_heads: int
    inner: int
    eps: float

    @nn.compact
    def __call__(
        self, x: jax.Array, angles: jax.Array | None = None, mask: jax.Array | None = None,
        modulation: jax.Array | None = None,
    ) -> jax.Array:  # fmt: skip
        numbers: list[jax.Array | float] = [0.0, 0.0, 1.0] * 2
        if modulation is not None:
            table = parameter(self, "scale_shift_table", nn.initializers.zeros, (6, x.shape[-1]))
            numbers = list(jnp.split(modulation + table.reshape(-1), 6, axis=-1))
        scale, shift, gate, scale_feed, shift_feed, gate_feed = numbers
        attend = SelfAttention(self.heads, self.eps, self.kv_heads, OFFSET, True, name="attn")
        x += gate * attend((1 + scale) * self.norm("norm1", x) + shift, angles, mask)
        return x + gate_feed * self.feed((1 + scale_feed) * self.norm("norm2", x) + shift_feed)

    def norm(self, name: str, x: jax.Array) -> jax.Array:
        """Normalize the last axis."""
        return RMSNorm(self.eps, offset=OFFSET, name=name)(x)

    def feed(self, x: jax.Array) -> jax.Array:
        """Wider, gated by an activation, and narrower."""
        gate, up = (Linear(self.inner, False, name=f"ff.{name}")(x) for name in ("gate", "up"))
        return Linear(x.shape[-1], False, name="ff.down")(nn.silu(gate) * up)


class Krea2FinalLayer(nn.Module):
    """Tokens (b, n, c) to patches (b, n, features): a norm, scaled and shifted by temb (b, 1, c), and a linear map."""

    features: int
    eps: float

    @nn.compact
    def __call__(self, x: jax.Array, temb: jax.Array) -> jax.Array:
        table = parameter(self, "scale_shift_table", nn.initializers.zeros, (2, x.shape[-1]))
        scale, shift = temb + table[:, None, None]
        y = (1 + scale) * RMSNorm(self.eps, offset=OFFSET, name="norm")(x) + shift
        return Linear(self.features, name="linear")(y)
