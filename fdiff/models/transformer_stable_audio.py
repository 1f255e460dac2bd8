"""StableAudioDiTModel: the denoiser of Stable Audio Open; StableAudioProjectionModel: what it is told."""

from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Count, Layers, Shift
from fdiff.models.layers.attention import attention, merge_heads, split_heads
from fdiff.models.layers.checks import require
from fdiff.models.layers.conv1d import Conv1d
from fdiff.models.layers.embeddings import GaussianFourierProjection
from fdiff.models.layers.feed_forward import FeedForward
from fdiff.models.layers.linear import Linear
from fdiff.models.layers.norm import LayerNorm
from fdiff.models.layers.parameter import parameter
from fdiff.models.layers.repeated import repeated
from fdiff.models.layers.rotary import rotary_angles, rotate_halves
from fdiff.models.model import Model

NUMBER_FEATURES = 256  # waves of a number of seconds


class StableAudioDiTModel(Model):
    """A transformer over the latents of a sound (Evans et al. 2024).

    hidden_states (b, n, in_channels) are noisy latents, `timestep` a number or (b,); encoder_hidden_states
    (b, m, cross_attention_input_dim) are a text, and how long the sound is; global_hidden_states
    (b, 1, global_states_input_dim) that length again. -> (b, n, out_channels).

        velocity = transformer.apply({"params": params}, latents, t, text, seconds)
    """

    sample_size: Count = 1024
    in_channels: Count = 64
    num_layers: Layers = 24
    attention_head_dim: Count = 64
    num_attention_heads: Count = 24
    num_key_value_attention_heads: Count = 12
    out_channels: Count = 64
    cross_attention_dim: Count = 768
    time_proj_dim: Count = 256
    global_states_input_dim: Count = 1536
    cross_attention_input_dim: Count = 768

    @nn.compact
    def __call__(
        self,
        hidden_states: jax.Array,
        timestep: jax.Array | float,
        encoder_hidden_states: jax.Array,
        global_hidden_states: jax.Array,
    ) -> jax.Array:
        self.check(hidden_states.shape, encoder_hidden_states.shape, global_hidden_states.shape)
        width = self.num_attention_heads * self.attention_head_dim
        text = self.twice("cross_attention_proj", encoder_hidden_states, self.cross_attention_dim, False)
        first = self.twice("global_proj", global_hidden_states, width, False)
        t = jnp.broadcast_to(jnp.asarray(timestep, jnp.float32), hidden_states.shape[:1])
        waves = GaussianFourierProjection(self.time_proj_dim // 2, log=False, flip_sin_to_cos=True, name="time_proj")(t)
        first += self.twice("timestep_proj", waves, width, True)[:, None]

        x = Conv1d(self.in_channels, 1, use_bias=False, name="preprocess_conv")(hidden_states) + hidden_states
        x = Linear(width, False, name="proj_in")(x)
        x = jnp.concatenate([first.astype(x.dtype), x], axis=1)
        angles = rotary_angles(jnp.arange(x.shape[1]), self.attention_head_dim // 2)
        sizes = self.num_attention_heads, self.num_key_value_attention_heads, self.attention_head_dim
        x = repeated(
            self, self.num_layers, lambda i: StableAudioDiTBlock(*sizes, name=f"transformer_blocks.{i}"),
            lambda block, x, i: block(x, text, angles), x,
        )  # fmt: skip
        x = Linear(self.out_channels, False, name="proj_out")(x)[:, 1:]
        return Conv1d(self.out_channels, 1, use_bias=False, name="postprocess_conv")(x) + x

    def twice(self, name: str, x: jax.Array, features: int, use_bias: bool) -> jax.Array:
        """Two linear maps with an activation between."""
        x = nn.silu(Linear(features, use_bias, name=f"{name}.0")(x))
        return Linear(features, use_bias, name=f"{name}.2")(x)

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        heads, shared, head = self.num_attention_heads, self.num_key_value_attention_heads, self.attention_head_dim
        good = heads % shared == 0
        require(good, f"num_key_value_attention_heads {shared} must divide num_attention_heads {heads}.")
        good = head % 4 == 0
        require(good, f"attention_head_dim {head} must be a multiple of 4, since halves of its half are turned.")
        require(self.time_proj_dim % 2 == 0, f"time_proj_dim {self.time_proj_dim} must be even.")

    def check(self, x: tuple[int, ...], text: tuple[int, ...], seconds: tuple[int, ...]) -> None:
        """Refuse options that do not fit together, and inputs that do not fit them."""
        self.check_options()
        wanted = {
            "hidden_states": (x, self.in_channels),
            "encoder_hidden_states": (text, self.cross_attention_input_dim),
            "global_hidden_states": (seconds, self.global_states_input_dim),
        }
        for name, (shape, features) in wanted.items():
            if len(shape) != 3 or shape[2] != features or (name.startswith("global") and shape[1] != 1):
                count = 1 if name.startswith("global") else "number"
                raise ValueError(f"{name} must be (batch, {count}, {features}); it is {shape}.")

    def example_inputs(self) -> tuple[Any, ...]:
        """One latent and one token."""
        widths = self.in_channels, self.cross_attention_input_dim, self.global_states_input_dim
        x, text, seconds = (np.zeros((1, 1, width), np.float32) for width in widths)
        return x, np.zeros(1, np.float32), text, seconds


class StableAudioDiTBlock(nn.Module):
    """Attention to the sound, attention to the text, and a feed-forward network, each added to its input: (b, n, c)."""

    heads: int
    kv_heads: int
    head_dim: int

    @nn.compact
    def __call__(self, x: jax.Array, text: jax.Array, angles: jax.Array) -> jax.Array:
        y = LayerNorm(name="norm1")(x)
        q, k, v = self.project("attn1", y, y, self.heads)
        x += self.attend("attn1", self.turn(q, angles), self.turn(k, angles), v)
        q, k, v = self.project("attn2", LayerNorm(name="norm2")(x), text, self.kv_heads)
        k, v = (jnp.repeat(part, self.heads // self.kv_heads, axis=2) for part in (k, v))
        x += self.attend("attn2", q, k, v)
        return x + FeedForward(activation_fn="swiglu", name="ff")(LayerNorm(name="norm3")(x))

    def project(self, name: str, x: jax.Array, context: jax.Array, heads: int) -> list[jax.Array]:
        """Queries of x, keys and values of the context, (b, n, heads, d)."""
        given = {"to_q": (x, self.heads), "to_k": (context, heads), "to_v": (context, heads)}
        return [
            split_heads(Linear(count * self.head_dim, False, name=f"{name}.{part}")(source), count)
            for part, (source, count) in given.items()
        ]

    def turn(self, x: jax.Array, angles: jax.Array) -> jax.Array:
        """The first half of each head turned by where its token is."""
        turned, kept = jnp.split(x, [self.head_dim // 2], axis=-1)
        return jnp.concatenate([rotate_halves(turned, angles), kept], axis=-1)

    def attend(self, name: str, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        """What the tokens see: (b, n, c)."""
        return Linear(q.shape[2] * q.shape[3], False, name=f"{name}.to_out.0")(merge_heads(attention(q, k, v)))


class StableAudioTold(NamedTuple):
    """What Stable Audio is told: a text (b, n, d), and where its sound starts and ends, (b, 1, d) each."""

    text: jax.Array
    start: jax.Array
    end: jax.Array


class StableAudioProjectionModel(Model):
    """A text (b, n, text_encoder_dim), and seconds (b,) where a sound starts and ends -> StableAudioTold."""

    library: ClassVar[str] = "stable_audio"

    text_encoder_dim: Count = 768
    conditioning_dim: Count = 768
    min_value: Shift = 0.0
    max_value: Shift = 512.0

    @nn.compact
    def __call__(self, text: jax.Array, start: jax.Array, end: jax.Array) -> StableAudioTold:
        if self.conditioning_dim != self.text_encoder_dim:
            text = Linear(self.conditioning_dim, name="text_projection")(text)
        return StableAudioTold(text, self.number("start", start), self.number("end", end))

    def number(self, name: str, seconds: jax.Array) -> jax.Array:
        """Numbers of seconds (b,), within the bounds, as vectors (b, 1, conditioning_dim)."""
        place = f"{name}_number_conditioner.time_positional_embedding"
        share = (jnp.clip(seconds, self.min_value, self.max_value) - self.min_value) / (self.max_value - self.min_value)
        waves = Waves(NUMBER_FEATURES // 2, name=f"{place}.0")(share[:, None])
        return Linear(self.conditioning_dim, name=f"{place}.1")(waves)[:, None]

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        require(self.min_value < self.max_value, f"max_value {self.max_value} must exceed min_value {self.min_value}.")

    def example_inputs(self) -> tuple[Any, ...]:
        """One token."""
        return np.zeros((1, 1, self.text_encoder_dim), np.float32), np.zeros(1, np.float32), np.zeros(1, np.float32)


class Waves(nn.Module):
    """A number t (..., 1) as t, sin(2 pi w t) and cos(2 pi w t), the checkpoint holding w: (..., 1 + 2 features)."""

    features: int

    @nn.compact
    def __call__(self, t: jax.Array) -> jax.Array:
        frequencies = parameter(self, "weights", nn.initializers.normal(1.0), (self.features,))
        angles = t * frequencies.astype(jnp.float32) * (2 * np.pi)
        return jnp.concatenate([t, jnp.sin(angles), jnp.cos(angles)], axis=-1)
