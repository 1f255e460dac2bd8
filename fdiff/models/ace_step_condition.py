"""AceStepConditionEncoder: text, lyrics and timbre to what ACE-Step 1.5's transformer is told."""

from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Count, Dropout, Epsilon, Layers, Theta
from fdiff.models.layers.ace_step import AceStepAttention, AceStepMLP, check_layers, kinds_of_layers, windows
from fdiff.models.layers.linear import Linear
from fdiff.models.layers.norm import RMSNorm
from fdiff.models.layers.parameter import parameter
from fdiff.models.layers.rotary import rotary_angles
from fdiff.models.model import Model
from fdiff.models.transformer_ace_step import Kind

SILENCE = 15000  # latents of silence that a checkpoint holds


class AceStepTold(NamedTuple):
    """What the transformer is told, (b, n, hidden_size), and 1 where there is something, (b, n): at the start."""

    hidden_states: jax.Array
    mask: jax.Array


class AceStepConditionEncoder(Model):
    """A text (b, n, text_hidden_dim) with its mask (b, n), lyrics likewise, and a timbre -> AceStepTold.

    refer_audio (k, m, timbre_hidden_dim) are latents of sounds, and `refer_audio_order` (k,) for which of the b each
    is; `most` is how many there are of one, since that shapes the result. The checkpoint also holds
    `silence_latent`, (1, 15000, timbre_hidden_dim), to give where there is no such sound, and `null_condition_emb`,
    (1, 1, hidden_size), what guidance moves away from; neither is read here.
    """

    library: ClassVar[str] = "ace_step"

    hidden_size: Count = 2048
    intermediate_size: Count = 6144
    text_hidden_dim: Count = 1024
    timbre_hidden_dim: Count = 64
    num_lyric_encoder_hidden_layers: Layers = 8
    num_timbre_encoder_hidden_layers: Layers = 4
    num_attention_heads: Count = 16
    num_key_value_heads: Count = 8
    head_dim: Count = 128
    rope_theta: Theta = 1000000.0
    attention_bias: bool = False
    attention_dropout: Dropout = 0.0
    rms_norm_eps: Epsilon = 1e-6
    sliding_window: Count = 128
    layer_types: tuple[Kind, ...] | None = None

    @nn.compact
    def __call__(
        self,
        text: jax.Array,
        text_mask: jax.Array,
        lyrics: jax.Array,
        lyrics_mask: jax.Array,
        refer_audio: jax.Array,
        refer_audio_order: jax.Array,
        most: int = 1,
    ) -> AceStepTold:
        self.check_options()
        width, batch = self.hidden_size, text.shape[0]
        parameter(self, "null_condition_emb", nn.initializers.normal(1.0), (1, 1, width))
        parameter(self, "silence_latent", nn.initializers.zeros, (1, SILENCE, self.timbre_hidden_dim))
        parameter(self, "timbre_encoder.special_token", nn.initializers.normal(1.0), (1, 1, width))
        text = Linear(width, False, name="text_projector")(text)
        kinds = kinds_of_layers(self.layer_types, self.num_lyric_encoder_hidden_layers)
        lyrics = self.encode("lyric_encoder", lyrics, lyrics_mask, kinds)
        kinds = kinds_of_layers(None, self.num_timbre_encoder_hidden_layers)
        timbre = self.encode("timbre_encoder", refer_audio, None, kinds)[:, 0]
        told = pack(AceStepTold(lyrics, lyrics_mask), unpacked(timbre, refer_audio_order, batch, most))
        return pack(told, AceStepTold(text, text_mask))

    def encode(self, name: str, x: jax.Array, mask: jax.Array | None, kinds: tuple[str, ...]) -> jax.Array:
        """A sequence through one of the small transformers: (b, n, d) -> (b, n, hidden_size)."""
        x = Linear(self.hidden_size, name=f"{name}.embed_tokens")(x)
        angles = rotary_angles(jnp.arange(x.shape[1]), self.head_dim, self.rope_theta)
        masks = windows(x.shape[1], self.sliding_window, mask)
        sizes = self.num_attention_heads, self.num_key_value_heads, self.head_dim, self.attention_bias
        for i, kind in enumerate(kinds):
            place = f"{name}.layers.{i}"
            attend = AceStepAttention(*sizes, self.rms_norm_eps, name=f"{place}.self_attn")
            x += attend(self.norm(f"{place}.input_layernorm", x), angles=angles, mask=masks[kind])
            y = self.norm(f"{place}.post_attention_layernorm", x)
            x += AceStepMLP(self.intermediate_size, name=f"{place}.mlp")(y)
        return self.norm(f"{name}.norm", x)

    def norm(self, name: str, x: jax.Array) -> jax.Array:
        """Normalize the last axis."""
        return RMSNorm(self.rms_norm_eps, name=name)(x)

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        check_layers(self, "num_lyric_encoder_hidden_layers")

    def example_inputs(self) -> tuple[Any, ...]:
        """One token of each."""
        text, audio = (np.zeros((1, 1, width), np.float32) for width in (self.text_hidden_dim, self.timbre_hidden_dim))
        mask = np.ones((1, 1), np.int32)
        return text, mask, text, mask, audio, np.zeros(1, np.int32)


def pack(first: AceStepTold, second: AceStepTold) -> AceStepTold:
    """Both, one behind the other, what their masks leave out being put at the end."""
    states = jnp.concatenate([first.hidden_states, second.hidden_states], axis=1)
    mask = jnp.concatenate([first.mask, second.mask], axis=1) != 0
    order = jnp.argsort(~mask, axis=1, stable=True)
    filled = jnp.arange(mask.shape[1]) < mask.sum(1, keepdims=True)
    return AceStepTold(jnp.take_along_axis(states, order[..., None], axis=1), filled)


def unpacked(vectors: jax.Array, order: jax.Array, batch: int, most: int) -> AceStepTold:
    """Vectors (k, d), each of one of a batch, as (b, most, d) in their order, and 1 where there is one."""
    places = jnp.arange(len(order))
    place = ((order[:, None] == order) & (places < places[:, None])).sum(1)  # how many of the same one are before
    states = jnp.zeros((batch, most, vectors.shape[-1]), vectors.dtype).at[order, place].set(vectors, mode="drop")
    return AceStepTold(states, jnp.zeros((batch, most), bool).at[order, place].set(True, mode="drop"))
