"""Flux3Transformer2DModel: the denoiser of FLUX.3."""

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Count, Depth, Epsilon, Layers, Theta, between, some
from fdiff.models.layers.checks import check_axes
from fdiff.models.layers.embeddings import TimestepEmbedding, sinusoidal
from fdiff.models.layers.joint_attention import check_sequence
from fdiff.models.layers.linear import Linear
from fdiff.models.layers.modulation import Modulation, modulated, swiglu
from fdiff.models.layers.repeated import repeated
from fdiff.models.layers.rotary import axes_angles
from fdiff.models.layers.self_attention import SelfAttention
from fdiff.models.model import Model

TIME_SCALE = 1000.0


class Flux3Transformer2DModel(Model):
    """A transformer over the tokens of a text, a picture and pictures to keep to (Black Forest Labs 2026).

    Each of the three has blocks of its own first. hidden_states (b, n, in_channels) are latents, a token each, and
    image_cond_hidden_states (b, k, cond_in_channels) those of pictures to keep to; encoder_hidden_states
    (b, m, joint_attention_dim) are a text; `timestep` (b,) is sigma, from 1, noise, to 0; img_ids (n, 4), txt_ids
    (m, 4) and image_cond_ids (k, 4) say where each token is: time, row, column, place in the text. target_timestep
    (b,), the sigma that the step goes to, is told to networks with flow_map. Where encoder_attention_mask (b, m) is
    given, tokens of the text that are 0 are none. -> (b, n, in_channels).

        velocity = transformer.apply({"params": params}, latents, text, sigma, img_ids, txt_ids)
    """

    in_channels: Count = 128
    cond_in_channels: Count = 128
    num_layers: Depth = 5
    num_single_layers: Layers = 28
    attention_head_dim: Count = 128
    num_attention_heads: Count = 24
    joint_attention_dim: Count = 20480
    timestep_channels: Count = 256
    mlp_ratio: Annotated[float, between(1e-2, 100)] = 3.0
    axes_dims_rope: Annotated[tuple[Count, ...], some(8)] = (32, 32, 32, 32)
    rope_theta: Theta = 10000
    eps: Epsilon = 1e-6
    flow_map: bool = False

    @nn.compact
    def __call__(
        self,
        hidden_states: jax.Array,
        encoder_hidden_states: jax.Array,
        timestep: jax.Array | float,
        img_ids: jax.Array,
        txt_ids: jax.Array,
        image_cond_hidden_states: jax.Array | None = None,
        image_cond_ids: jax.Array | None = None,
        target_timestep: jax.Array | float | None = None,
        encoder_attention_mask: jax.Array | None = None,
    ) -> jax.Array:
        streams = {"txt": (encoder_hidden_states, txt_ids), "image": (hidden_states, img_ids)}
        if image_cond_hidden_states is not None and image_cond_ids is not None:
            streams["image_cond"] = image_cond_hidden_states, image_cond_ids
        self.check({name: (x.shape, ids.shape) for name, (x, ids) in streams.items()}, target_timestep)
        if (image_cond_hidden_states is None) != (image_cond_ids is None):
            raise ValueError("image_cond_hidden_states and image_cond_ids go together; pass both or neither.")

        batch = hidden_states.shape[:1]
        embed = TimestepEmbedding(self.width(), use_bias=False, name="timestep_embedder")
        temb, still = embed(self.waves(timestep, batch)), embed(self.waves(0.0, batch))
        if target_timestep is not None:
            embed_target = TimestepEmbedding(self.width(), use_bias=False, name="target_timestep_embedder")
            target = embed_target(self.waves(target_timestep, batch))
            temb, still = temb + target, still + target

        there = None if encoder_attention_mask is None else (encoder_attention_mask != 0)[:, None, None]
        tokens, turns, numbers = [], [], []
        for name, (x, ids) in streams.items():
            vector = temb if name == "image" else still
            own = Modulation(3, self.width(), False, name=f"early_stream_modulations.{name}")(vector)
            numbers.append(Modulation(3, self.width(), False, name=f"single_stream_modulations.{name}")(vector))
            turns.append(axes_angles(ids, self.axes_dims_rope, self.rope_theta))
            embedder = "context_embedder" if name == "txt" else f"x_embedders.{name}"
            blocks = "txt_mode_blocks" if name == "txt" else f"mode_blocks.{name}"
            inside = [Linear(self.width(), False, name=embedder)(x)]
            tokens += self.through(blocks, self.num_layers, inside, turns[-1], [own], there if name == "txt" else None)
        angles = jnp.concatenate(turns)
        if there is not None:
            more = len(angles) - there.shape[-1]
            there = jnp.pad(there, ((0, 0), (0, 0), (0, 0), (0, more)), constant_values=True)
        tokens = self.through("single_transformer_blocks", self.num_single_layers, tokens, angles, numbers, there)
        scale, shift = Modulation(2, self.width(), False, name="norm_out")(temb)
        return Linear(self.in_channels, False, name="proj_out")(modulated(tokens[1], shift, scale, self.eps))

    def width(self) -> int:
        """The features of a token."""
        return self.num_attention_heads * self.attention_head_dim

    def waves(self, t: jax.Array | float, batch: tuple[int, ...]) -> jax.Array:
        """Times from 0 to 1 as sines and cosines, (b, timestep_channels)."""
        numbers = TIME_SCALE * jnp.broadcast_to(jnp.asarray(t, jnp.float32), batch)
        return sinusoidal(numbers, self.timestep_channels, flip_sin_to_cos=True, freq_shift=0)

    def through(self, name: str, count: int, streams: list[jax.Array], *others: Any) -> list[jax.Array]:
        """What so many blocks make of streams."""
        common = self.num_attention_heads, self.mlp_ratio, self.eps
        return repeated(
            self, count, lambda i: Flux3Block(*common, name=f"{name}.{i}"),
            lambda block, streams, i: block(streams, *others), streams,
        )  # fmt: skip

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        check_axes(self)

    def check(self, streams: dict[str, tuple[tuple[int, ...], tuple[int, ...]]], target: Any) -> None:
        """Refuse options that do not fit together, and inputs that do not fit them."""
        self.check_options()
        known = {
            "txt": ("encoder_hidden_states", self.joint_attention_dim), "image": ("hidden_states", self.in_channels),
            "image_cond": ("image_cond_hidden_states", self.cond_in_channels),
        }  # fmt: skip
        for name, (x, ids) in streams.items():
            check_sequence(known[name][0], x, known[name][1], ids, len(self.axes_dims_rope))
        if (target is None) == self.flow_map:
            verb = "needs" if self.flow_map else "takes no"
            raise ValueError(f"This Flux3Transformer2DModel {verb} target_timestep; see flow_map.")

    def example_inputs(self) -> tuple[Any, ...]:
        """One token of each kind."""
        widths = self.in_channels, self.joint_attention_dim, self.cond_in_channels
        x, text, kept = (np.zeros((1, 1, width), np.float32) for width in widths)
        ids, t = np.zeros((1, len(self.axes_dims_rope)), np.float32), np.zeros(1, np.float32)
        return x, text, t, ids, ids, kept, ids, t if self.flow_map else None


class Flux3Block(nn.Module):
    """Attention and a feed-forward network beside each other, from one input: streams (b, n, c), each with its numbers.

    Tokens see those of all streams that are given, or of them those that `there` (b, 1, 1, n) says.
    """

    heads: int
    mlp_ratio: float
    eps: float

    @nn.compact
    def __call__(
        self, streams: list[jax.Array], angles: jax.Array, numbers: list[list[jax.Array]], there: jax.Array | None
    ) -> list[jax.Array]:
        x = jnp.concatenate(
            [modulated(one, shift, scale, self.eps) for one, (shift, scale, _) in zip(streams, numbers, strict=True)],
            axis=1,
        )
        inner = int(x.shape[-1] * self.mlp_ratio)
        fed = swiglu(Linear(2 * inner, False, name="ff.linear_in")(x))
        y = SelfAttention(self.heads, self.eps, name="attn")(x, angles, there)
        y += Linear(x.shape[-1], False, name="ff.linear_out")(fed)
        ends = np.cumsum([one.shape[1] for one in streams])[:-1]
        parts = jnp.split(y, ends, axis=1)
        return [one + gate * part for one, part, (_, _, gate) in zip(streams, parts, numbers, strict=True)]
