"""QwenImage21Transformer2DModel: the denoiser of Qwen-Image-2.1."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Channels, Count, Epsilon, Layers, between
from fdiff.models.layers.activations import gelu_tanh
from fdiff.models.layers.attention import attention
from fdiff.models.layers.checks import check_axes, require
from fdiff.models.layers.embeddings import TimestepEmbedding, sinusoidal
from fdiff.models.layers.linear import Linear
from fdiff.models.layers.norm import RMSNorm, standardized
from fdiff.models.layers.repeated import repeated
from fdiff.models.layers.rotary import axes_angles
from fdiff.models.layers.self_attention import SelfAttention
from fdiff.models.model import Model

TIME_FEATURES, TIME_SCALE, THETA = 256, 1000.0, 10000.0
SQUARE = 4  # latents of a picture to keep to for which one token stands in the text


class QwenImage21Transformer2DModel(Model):
    """A transformer over a text and the latents of pictures in one sequence, each after the other (Qwen Team 2026).

    sample (b, h, w, in_channels) -> (b, h, w, out_channels). `timestep` (b,) is sigma, from 1, noise, to 0.
    encoder_hidden_states (b, n, context_in_dim) are a text; where encoder_attention_mask (b, n) is given, tokens that
    are 0 are none. Words see those before them, a picture all of itself and what is before it; the one that is drawn is
    the last, as if behind text_length (b,) tokens, if not behind all that are given. `kept` are latents (b, rows,
    columns, in_channels) of pictures to keep to, and kept_at where in the text the tokens that stand for them begin,
    one for four latents. With causal_condition, only the last is told the time.

        velocity = transformer.apply({"params": params}, latents, sigma, tokens, mask)
    """

    patch_size: Count = 1
    in_channels: Channels = 64
    out_channels: Channels | None = 64
    num_layers: Layers = 32
    attention_head_dim: Count = 128
    num_attention_heads: Count = 32
    context_in_dim: Count = 4096
    mlp_ratio: Annotated[int, between(1, 100)] = 3
    axes_dims_rope: tuple[Count, Count, Count] = (16, 56, 56)
    eps: Epsilon = 1e-6
    causal_condition: bool = True

    @nn.compact
    def __call__(
        self,
        sample: jax.Array,
        timestep: jax.Array | float,
        encoder_hidden_states: jax.Array,
        encoder_attention_mask: jax.Array | None = None,
        text_length: jax.Array | None = None,
        kept: Sequence[jax.Array] = (),
        kept_at: tuple[int, ...] = (),
    ) -> jax.Array:
        self.check(sample.shape, encoder_hidden_states.shape, [one.shape for one in kept], kept_at)
        width, (batch, rows, columns, channels) = self.num_attention_heads * self.attention_head_dim, sample.shape
        sizes = [*(one.shape[1:3] for one in kept), (rows, columns)]
        order, pictures, places = sequence(encoder_hidden_states.shape[1], sizes, kept_at)
        before = len(order) - rows * columns

        text = RMSNorm(self.eps, offset=1, name="txt_in.text_norm")(encoder_hidden_states)
        text = gelu_tanh(Linear(width, False, name="txt_in.in_layer")(text))
        text = Linear(width, False, name="txt_in.out_layer")(text)
        latents = [one.reshape(batch, -1, channels) for one in (*kept, sample)]
        drawn = Linear(width, False, name="img_in")(jnp.concatenate(latents, axis=1))
        x, seen = jnp.concatenate([text, drawn], axis=1)[:, order], None
        if encoder_attention_mask is not None:
            there = jnp.pad(encoder_attention_mask != 0, ((0, 0), (0, drawn.shape[1])), constant_values=True)
            seen = there[:, order]

        t = TIME_SCALE * jnp.broadcast_to(jnp.asarray(timestep, jnp.float32), (batch,))
        embed = TimestepEmbedding(width, use_bias=False, name="time_text_embed.timestep_embedder")
        modulate = Linear(4 * width, False, name="modulation.1")
        temb, *rest = [
            embed(sinusoidal(one, TIME_FEATURES, flip_sin_to_cos=True, freq_shift=0))
            for one in ((t, jnp.zeros(1)) if self.causal_condition else (t,))
        ]
        numbers = [jnp.split(modulate(nn.silu(one))[:, None], 4, axis=-1) for one in (temb, *rest)]
        if text_length is not None:
            later = jnp.asarray(text_length, jnp.float32)[:, None, None] - encoder_hidden_states.shape[1]
            drawn_here = (np.arange(len(order)) >= before)[:, None] * np.array([1, 0, 0])
            places = places + later * drawn_here
        angles = axes_angles(jnp.asarray(places), self.axes_dims_rope, THETA)
        common = self.num_attention_heads, self.mlp_ratio, self.eps
        x = repeated(
            self, self.num_layers, lambda i: QwenImage21Block(*common, name=f"transformer_blocks.{i}"),
            lambda block, x, i: block(x, angles, seen, pictures[:before], numbers[0], numbers[-1]), x,
        )  # fmt: skip
        scale = Linear(width, False, name="norm_out.linear")(nn.silu(temb))[:, None]
        last = standardized(x[:, before:], self.eps).astype(x.dtype) * (1 + scale)
        features = self.out_channels or self.in_channels
        return Linear(features, False, name="proj_out")(last).reshape(batch, rows, columns, features)

    def check_options(self) -> None:
        """Refuse options that no such network has, or that do not fit together."""
        require(self.patch_size == 1, "patch_size must be 1: the network reads single latents.")
        check_axes(self)

    def check(
        self, sample: tuple[int, ...], text: tuple[int, ...], kept: list[tuple[int, ...]], kept_at: tuple[int, ...]
    ) -> None:
        """Refuse options that do not fit together, and inputs that do not fit them."""
        self.check_options()
        for name, shape in (("sample", sample), *(("each of kept", one) for one in kept)):
            if len(shape) != 4 or shape[3] != self.in_channels:
                raise ValueError(f"{name} must be (batch, height, width, {self.in_channels}); it is {shape}.")
        if len(text) != 3 or text[2] != self.context_in_dim:
            raise ValueError(f"encoder_hidden_states must be (batch, number, {self.context_in_dim}); it is {text}.")
        ends = [start + one[1] * one[2] // SQUARE for start, one in zip(kept_at, kept, strict=False)]
        whole = all(one[1] * one[2] % SQUARE == 0 for one in kept) and len(kept) == len(kept_at)
        if not whole or any(end > start for end, start in zip((0, *ends), (*kept_at, text[1]), strict=True)):
            raise ValueError(f"kept_at must say where {SQUARE} latents a token stand for each of kept among {text[1]} "
                             f"tokens, one after the other; it is {kept_at}.")

    def example_inputs(self) -> tuple[Any, ...]:
        """One latent, a time and one token."""
        sample = np.zeros((1, 1, 1, self.in_channels), np.float32)
        return sample, np.zeros(1, np.float32), np.zeros((1, 1, self.context_in_dim), np.float32)


class QwenImage21Block(nn.Module):
    """Self-attention and a gated feed-forward network, both scaled and gated as in all blocks: (b, n, c).

    What is before the picture that is drawn has numbers of its own; `pictures` says to which picture it belongs.
    """

    heads: int
    mlp_ratio: int
    eps: float

    @nn.compact
    def __call__(
        self, x: jax.Array, angles: jax.Array, seen: jax.Array | None, pictures: np.ndarray,
        numbers: list[jax.Array], numbers_before: list[jax.Array],
    ) -> jax.Array:  # fmt: skip
        before = (np.arange(x.shape[1]) < len(pictures))[:, None]
        pairs = zip(numbers_before, numbers, strict=True)
        scale, gate, scale_feed, gate_feed = (jnp.where(before, one, other) for one, other in pairs)
        look = partial(one_after_the_other, pictures=pictures)
        attend = SelfAttention(self.heads, self.eps, name="attn")
        x += jnp.tanh(gate) * attend(self.norm(x) * (1 + scale), angles, seen, look)
        return x + jnp.tanh(gate_feed) * self.feed(self.norm(x) * (1 + scale_feed))

    def norm(self, x: jax.Array) -> jax.Array:
        """Normalize the last axis."""
        return standardized(x, self.eps).astype(x.dtype)

    def feed(self, x: jax.Array) -> jax.Array:
        """Wider, gated by an activation, and narrower."""
        inner = x.shape[-1] * self.mlp_ratio
        gate, up = (Linear(inner, False, name=f"img_mlp.{name}")(x) for name in ("gate_layer", "proj"))
        return Linear(x.shape[-1], False, name="img_mlp.out")(nn.silu(gate) * up)


def one_after_the_other(
    q: jax.Array, k: jax.Array, v: jax.Array, seen: jax.Array | None, *, pictures: np.ndarray
) -> jax.Array:
    """Attention (b, n, heads, d) of tokens to those before them and those of their own picture.

    pictures: to which picture each token belongs that is before the one that is drawn, -1 for words. seen (b, n): which
    tokens are there.
    """
    count = len(pictures)
    order = np.tril(np.ones((count, count), bool)) | ((pictures[:, None] == pictures) & (pictures >= 0))
    there = None if seen is None else seen[:, None, None]
    mask = order[None, None] if there is None else order[None, None] & there[..., :count]
    first = attention(q[:, :count], k[:, :count], v[:, :count], jnp.asarray(mask))
    return jnp.concatenate([first, attention(q[:, count:], k, v, there)], axis=1)


def sequence(
    length: int, sizes: Sequence[tuple[int, ...]], kept_at: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A text and pictures as one sequence of n tokens.

    (n,): which of the text, of that length, and behind it the pictures' latents each token is; (n,): to which picture
    it belongs, -1 for words; (n, 3): where it is, in time, rows and columns. Words count on in all three. A picture
    stands still in time, its middle being 0 in the others, and is as long as its longer side.
    """
    order: list[np.ndarray] = []
    pictures: list[np.ndarray] = []
    places: list[np.ndarray] = []
    at, time, read = 0, 0, length
    for number, (rows, columns) in enumerate(sizes):
        start, count = (*kept_at, length)[number], rows * columns
        words = np.arange(at, start)
        row, column = np.indices((rows, columns)).reshape(2, -1)
        still = np.full(count, time + len(words))
        order += [words, read + np.arange(count)]
        pictures += [np.full(len(words), -1), np.full(count, number)]
        places += [np.stack([time + np.arange(len(words))] * 3, axis=-1),
                   np.stack([still, row - (rows - rows // 2), column - (columns - columns // 2)], axis=-1)]
        at, time, read = start + count // SQUARE, time + len(words) + max(rows, columns), read + count
    return np.concatenate(order), np.concatenate(pictures), np.concatenate(places).astype(np.float32)
