"""AceStepTransformer1DModel: the denoiser of ACE-Step 1.5's music."""

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Count, Dropout, Epsilon, Layers, OneOf, Theta, between
from fdiff.models.layers.ace_step import AceStepAttention, AceStepMLP, check_layers, kinds_of_layers, windows
from fdiff.models.layers.checks import require
from fdiff.models.layers.conv1d import Conv1d, ConvTranspose1d
from fdiff.models.layers.embeddings import sinusoidal
from fdiff.models.layers.linear import Linear
from fdiff.models.layers.norm import RMSNorm
from fdiff.models.layers.parameter import parameter
from fdiff.models.layers.repeated import repeated
from fdiff.models.layers.rotary import rotary_angles
from fdiff.models.model import Model

TIME_SCALE, TIME_FEATURES = 1000.0, 256
Kind = Annotated[str, OneOf(("sliding_attention", "full_attention"))]


class AceStepTransformer1DModel(Model):
    """A transformer over the latents of a piece of music (ACE-Step 2026).

    hidden_states (b, n, audio_acoustic_hidden_dim) are noisy latents; context_latents (b, n, c) are those of what is to
    be kept or changed, and where; encoder_hidden_states (b, m, d) are text, lyrics and timbre, as
    AceStepConditionEncoder packs them. `timestep` (b,) is sigma, from 1, noise, to 0, and `timestep_r` (b,) where the
    step ends, or the same. -> (b, n, audio_acoustic_hidden_dim).

        velocity = transformer.apply({"params": params}, latents, sigma, sigma, told, context)
    """

    hidden_size: Count = 2048
    intermediate_size: Count = 6144
    num_hidden_layers: Layers = 24
    num_attention_heads: Count = 16
    num_key_value_heads: Count = 8
    head_dim: Count = 128
    in_channels: Count = 192
    audio_acoustic_hidden_dim: Count = 64
    patch_size: Annotated[int, between(1, 64)] = 2
    rope_theta: Theta = 1000000.0
    attention_bias: bool = False
    attention_dropout: Dropout = 0.0
    rms_norm_eps: Epsilon = 1e-6
    sliding_window: Count = 128
    layer_types: tuple[Kind, ...] | None = None
    encoder_hidden_size: Count | None = None
    is_turbo: bool = False
    model_version: str | None = None

    @nn.compact
    def __call__(
        self,
        hidden_states: jax.Array,
        timestep: jax.Array | float,
        timestep_r: jax.Array | float,
        encoder_hidden_states: jax.Array,
        context_latents: jax.Array,
    ) -> jax.Array:
        self.check(hidden_states.shape, encoder_hidden_states.shape, context_latents.shape)
        batch = hidden_states.shape[:1]
        t, r = (jnp.broadcast_to(jnp.asarray(one, jnp.float32), batch) for one in (timestep, timestep_r))
        whole, parts = self.embed("time_embed", t)
        more, more_parts = self.embed("time_embed_r", t - r)
        whole, parts = whole + more, parts + more_parts

        x, length = jnp.concatenate([context_latents, hidden_states], axis=-1), hidden_states.shape[1]
        x = jnp.pad(x, ((0, 0), (0, -length % self.patch_size), (0, 0)))
        x = Conv1d(self.hidden_size, self.patch_size, self.patch_size, name="proj_in_conv")(x)
        told = Linear(self.hidden_size, name="condition_embedder")(encoder_hidden_states)
        angles = rotary_angles(jnp.arange(x.shape[1]), self.head_dim, self.rope_theta)
        masks = windows(x.shape[1], self.sliding_window)
        near = [kind == "sliding_attention" for kind in kinds_of_layers(self.layer_types, self.num_hidden_layers)]
        sizes = (
            self.num_attention_heads, self.num_key_value_heads, self.head_dim, self.intermediate_size,
            self.attention_bias, self.rms_norm_eps,
        )  # fmt: skip

        def step(block: Any, x: jax.Array, i: Any) -> jax.Array:
            if isinstance(i, int):
                mask = masks["sliding_attention"] if near[i] else None
            else:
                mask = jnp.where(jnp.array(near)[i], masks["sliding_attention"], masks["full_attention"])
            out: jax.Array = block(x, told, parts, angles, mask)
            return out

        x = repeated(
            self, self.num_hidden_layers, lambda i: AceStepTransformerBlock(*sizes, name=f"layers.{i}"), step, x
        )
        table = parameter(self, "scale_shift_table", table_of(self.hidden_size), (1, 2, self.hidden_size))
        shift, scale = jnp.split((table + whole[:, None]).astype(x.dtype), 2, axis=1)
        x = RMSNorm(self.rms_norm_eps, name="norm_out")(x) * (1 + scale) + shift
        features = self.audio_acoustic_hidden_dim
        return ConvTranspose1d(features, self.patch_size, self.patch_size, name="proj_out_conv")(x)[:, :length]

    def embed(self, name: str, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Times (b,) as vectors (b, d), and as six vectors for each block (b, 6, d)."""
        waves = sinusoidal(TIME_SCALE * t, TIME_FEATURES, flip_sin_to_cos=True, freq_shift=0)
        whole = Linear(self.hidden_size, name=f"{name}.linear_1")(waves)
        whole = Linear(self.hidden_size, name=f"{name}.linear_2")(nn.silu(whole))
        parts = Linear(6 * self.hidden_size, name=f"{name}.time_proj")(nn.silu(whole))
        return whole, parts.reshape(parts.shape[0], 6, self.hidden_size)

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        check_layers(self, "num_hidden_layers")
        own = self.audio_acoustic_hidden_dim
        require(self.in_channels > own, f"in_channels {self.in_channels} must exceed audio_acoustic_hidden_dim, {own}.")

    def check(self, x: tuple[int, ...], told: tuple[int, ...], context: tuple[int, ...]) -> None:
        """Refuse options that do not fit together, and inputs that do not fit them."""
        self.check_options()
        own = self.audio_acoustic_hidden_dim
        if len(x) != 3 or x[2] != own:
            raise ValueError(f"hidden_states must be (batch, number, {own}); it is {x}.")
        if context != (*x[:2], self.in_channels - own):
            raise ValueError(f"context_latents must be {(*x[:2], self.in_channels - own)}; it is {context}.")
        width = self.encoder_hidden_size or self.hidden_size
        if len(told) != 3 or told[2] != width:
            raise ValueError(f"encoder_hidden_states must be (batch, number, {width}); it is {told}.")

    def example_inputs(self) -> tuple[Any, ...]:
        """One patch and one token."""
        widths = (
            self.audio_acoustic_hidden_dim,
            self.encoder_hidden_size or self.hidden_size,
            self.in_channels - self.audio_acoustic_hidden_dim,
        )
        x, told, context = (np.zeros((1, 1, width), np.float32) for width in widths)
        return x, np.zeros(1, np.float32), np.zeros(1, np.float32), told, context


class AceStepTransformerBlock(nn.Module):
    """Attention to the music, to what it is told, and a feed-forward network, each added to its input: (b, n, c).

    The time, (b, 6, c), scales, shifts and gates the first and the last.
    """

    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    use_bias: bool
    eps: float

    @nn.compact
    def __call__(
        self, x: jax.Array, told: jax.Array, temb: jax.Array, angles: jax.Array, mask: jax.Array | None
    ) -> jax.Array:
        width = x.shape[-1]
        table = parameter(self, "scale_shift_table", table_of(width), (1, 6, width))
        shift, scale, gate, shift_2, scale_2, gate_2 = jnp.split((table + temb).astype(x.dtype), 6, axis=1)
        own, other = (
            AceStepAttention(self.heads, self.kv_heads, self.head_dim, self.use_bias, self.eps, name=f"{name}_attn")
            for name in ("self", "cross")
        )
        x += gate * own(self.norm("self_attn_norm", x) * (1 + scale) + shift, angles=angles, mask=mask)
        x += other(self.norm("cross_attn_norm", x), told)
        y = self.norm("mlp_norm", x) * (1 + scale_2) + shift_2
        return x + gate_2 * AceStepMLP(self.intermediate_size, name="mlp")(y)

    def norm(self, name: str, x: jax.Array) -> jax.Array:
        """Normalize the last axis."""
        return RMSNorm(self.eps, name=name)(x)


def table_of(width: int) -> Any:
    """How a fresh table of scales and shifts is drawn."""
    return nn.initializers.normal(width**-0.5)
