"""ZImageTransformer2DModel: the denoiser of Z-Image."""

import math
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Channels, Count, Epsilon, Factor, Layers, Theta, between, some
from fdiff.models.layers.attention import attention, merge_heads, split_heads
from fdiff.models.layers.checks import require
from fdiff.models.layers.embeddings import sinusoidal
from fdiff.models.layers.linear import Linear
from fdiff.models.layers.norm import LayerNorm, RMSNorm
from fdiff.models.layers.parameter import parameter
from fdiff.models.layers.patches import from_patches, to_patches
from fdiff.models.layers.repeated import repeated
from fdiff.models.layers.rotary import axes_angles, rotate_pairs
from fdiff.models.model import Model

MULTIPLE = 32  # of which both sequences have a length, by tokens that were learned for it
TIME_FEATURES = 256


class ZImageTransformer2DModel(Model):
    """A transformer over the patches of latents and the tokens of a text in one sequence (Z-Image Team 2025).

    sample (b, h, w, in_channels), h and w multiples of the patch -> (b, h, w, in_channels). `timestep` (b,) runs from
    0, noise, to 1, and what comes out points from noise to data: both against the scheduler's direction.
    encoder_hidden_states (b, n, cap_feat_dim) are the tokens of a text; where encoder_attention_mask (b, n) is given,
    those that are 0, all at the end, are none.

        velocity = transformer.apply({"params": params}, latents, 1 - sigma, tokens, mask)
    """

    all_patch_size: Annotated[tuple[Annotated[int, between(1, 64)], ...], some(8)] = (2,)
    all_f_patch_size: Annotated[tuple[Count, ...], some(8)] = (1,)
    in_channels: Channels = 16
    dim: Count = 3840
    n_layers: Layers = 30
    n_refiner_layers: Layers = 2
    n_heads: Count = 30
    n_kv_heads: Count = 30  # no checkpoint has fewer, and diffusers does not read it
    norm_eps: Epsilon = 1e-5
    qk_norm: bool = True
    cap_feat_dim: Count = 2560
    siglip_feat_dim: Count | None = None
    rope_theta: Theta = 256.0
    t_scale: Factor = 1000.0
    axes_dims: tuple[Count, Count, Count] = (32, 48, 48)
    axes_lens: tuple[Count, Count, Count] = (1024, 512, 512)

    @nn.compact
    def __call__(
        self,
        sample: jax.Array,
        timestep: jax.Array | float,
        encoder_hidden_states: jax.Array,
        encoder_attention_mask: jax.Array | None = None,
    ) -> jax.Array:
        size = self.check(sample.shape, encoder_hidden_states.shape)
        batch, height, width, _ = sample.shape
        t = jnp.broadcast_to(jnp.asarray(timestep, jnp.float32), (batch,)) * self.t_scale
        temb = TimestepEmbedder(min(self.dim, TIME_FEATURES), name="t_embedder")(t)

        text, lengths = padded(encoder_hidden_states), jnp.full((batch,), encoder_hidden_states.shape[1])
        if encoder_attention_mask is not None:
            lengths = (encoder_attention_mask != 0).sum(-1)
        ends = -(-lengths // MULTIPLE) * MULTIPLE  # of what is seen of each text, learned tokens and all
        seen = jnp.arange(text.shape[1]) < ends[:, None]
        text_angles, angles = self.angles(ends, text.shape[1], height // size, width // size)
        patches = to_patches(sample, size)

        suffix = f"{size}-{self.all_f_patch_size[0]}"
        x = Linear(self.dim, name=f"all_x_embedder.{suffix}")(padded(patches))
        x = self.filled("x_pad_token", x, jnp.full((batch,), patches.shape[1]))
        x = self.through("noise_refiner", self.n_refiner_layers, x, angles, None, temb)
        y = RMSNorm(self.norm_eps, name="cap_embedder.0")(text)
        y = self.filled("cap_pad_token", Linear(self.dim, name="cap_embedder.1")(y), lengths)
        y = self.through("context_refiner", self.n_refiner_layers, y, text_angles, seen, None)

        both = jnp.concatenate([x, y], axis=1)
        angles = jnp.concatenate([angles, text_angles], axis=1)
        seen = jnp.concatenate([jnp.ones(x.shape[:2], bool), seen], axis=1)
        both = self.through("layers", self.n_layers, both, angles, seen, temb)
        features = size**2 * self.in_channels
        last = FinalLayer(features, name=f"all_final_layer.{suffix}")(both[:, : patches.shape[1]], temb)
        return from_patches(last, height, width, size)

    def through(self, name: str, count: int, x: jax.Array, *others: Any) -> jax.Array:
        """What so many blocks make of x."""
        return repeated(
            self, count,
            lambda i: ZImageTransformerBlock(self.n_heads, self.norm_eps, self.qk_norm, name=f"{name}.{i}"),
            lambda block, x, i: block(x, *others), x,
        )  # fmt: skip

    def angles(self, ends: jax.Array, length: int, rows: int, columns: int) -> tuple[jax.Array, jax.Array]:
        """Rotary angles (b, n, d / 2) of the tokens of the text, and of the patches and the tokens behind them.

        A text is at (1, 0, 0), (2, 0, 0) and so on, a picture at its rows and columns just after the end (b,) of the
        text, and the learned tokens behind it at (0, 0, 0).
        """
        batch = ends.shape[0]
        text = jnp.zeros((batch, length, 3)).at[..., 0].set(1 + jnp.arange(length))
        grid = np.indices((1, rows, columns)).reshape(3, -1).T
        picture = jnp.asarray(grid, jnp.float32) + (ends[:, None, None] + 1) * np.array([1, 0, 0])
        parts = [axes_angles(part, self.axes_dims, self.rope_theta) for part in (text, padded(picture))]
        return parts[0], parts[1]

    def filled(self, name: str, x: jax.Array, lengths: jax.Array) -> jax.Array:
        """x (b, n, dim) with a learned token behind each of the lengths (b,)."""
        token = parameter(self, name, nn.initializers.zeros, (1, self.dim))
        own = jnp.arange(x.shape[1]) < lengths[:, None]
        return jnp.where(own[..., None], x, token.astype(x.dtype))

    def check_options(self) -> None:
        """Refuse options that no such network has, or that do not fit together."""
        if self.siglip_feat_dim is not None or len(self.all_patch_size) != 1 or self.all_f_patch_size != (1,):
            raise ValueError(
                "ZImageTransformer2DModel reads pictures in patches of one size, without SigLIP's features; "
                "siglip_feat_dim must be null, all_patch_size one number and all_f_patch_size [1]."
            )
        if sum(self.axes_dims) * self.n_heads != self.dim:
            raise ValueError(f"axes_dims {self.axes_dims} must add up to dim / n_heads, {self.dim} / {self.n_heads}.")
        longest = self.axes_lens[0]
        require(longest > MULTIPLE + 1, f"axes_lens[0] {longest} must exceed {MULTIPLE + 1}, or no text fits.")
        odd = [size for size in self.axes_dims if size % 2]
        require(not odd, f"axes_dims {self.axes_dims} must be even, since pairs of numbers are turned.")

    def check(self, sample: tuple[int, ...], text: tuple[int, ...]) -> int:
        """The length of a patch. Raises ValueError for options and shapes that it is not made for."""
        self.check_options()
        if len(sample) != 4 or sample[3] != self.in_channels:
            raise ValueError(f"sample must be (batch, height, width, {self.in_channels}); it is {sample}.")
        if len(text) != 3 or text[2] != self.cap_feat_dim:
            raise ValueError(f"encoder_hidden_states must be (batch, number, {self.cap_feat_dim}); they are {text}.")
        size = self.all_patch_size[0]
        lengths = math.ceil(text[1] / MULTIPLE) * MULTIPLE + 1, (sample[1] - 1) // size, (sample[2] - 1) // size
        if any(length >= most for length, most in zip(lengths, self.axes_lens, strict=True)):
            raise ValueError(
                f"A text of {text[1]} tokens with latents of {sample[1]} x {sample[2]} is too large for "
                f"axes_lens {self.axes_lens}; shorten the text or draw a smaller picture."
            )
        return size

    def example_inputs(self) -> tuple[Any, ...]:
        """One patch, a time and one token."""
        size = self.all_patch_size[0]
        sample = np.zeros((1, size, size, self.in_channels), np.float32)
        return sample, np.zeros(1, np.float32), np.zeros((1, 1, self.cap_feat_dim), np.float32)


class TimestepEmbedder(nn.Module):
    """Times (b,) to vectors (b, features)."""

    features: int

    @nn.compact
    def __call__(self, t: jax.Array) -> jax.Array:
        waves = sinusoidal(t, TIME_FEATURES, flip_sin_to_cos=True, freq_shift=0)
        return Linear(self.features, name="mlp.2")(nn.silu(Linear(1024, name="mlp.0")(waves)))


class ZImageTransformerBlock(nn.Module):
    """Self-attention and a gated feed-forward network, normalized before and after, and added to x (b, n, c).

    With temb (b, d), each input is scaled by it and each output gated. `seen` (b, n) are the tokens that are there.
    """

    heads: int
    eps: float
    qk_norm: bool

    @nn.compact
    def __call__(self, x: jax.Array, angles: jax.Array, seen: jax.Array | None, temb: jax.Array | None) -> jax.Array:
        scales: list[jax.Array | float] = [1.0] * 4
        if temb is not None:
            modulation = Linear(4 * x.shape[-1], name="adaLN_modulation.0")(temb)[:, None]
            scale_attention, gate_attention, scale_feed, gate_feed = jnp.split(modulation, 4, axis=-1)
            scales = [1 + scale_attention, jnp.tanh(gate_attention), 1 + scale_feed, jnp.tanh(gate_feed)]
        y = self.attend(self.norm("attention_norm1", x) * scales[0], angles, seen)
        x += scales[1] * self.norm("attention_norm2", y)
        y = self.feed(self.norm("ffn_norm1", x) * scales[2])
        return x + scales[3] * self.norm("ffn_norm2", y)

    def norm(self, name: str, x: jax.Array) -> jax.Array:
        """Normalize the last axis."""
        return RMSNorm(self.eps, name=name)(x)

    def attend(self, x: jax.Array, angles: jax.Array, seen: jax.Array | None) -> jax.Array:
        """Attention of x to itself."""
        width = x.shape[-1]
        q, k, v = (split_heads(Linear(width, False, name=f"attention.to_{part}")(x), self.heads) for part in "qkv")
        if self.qk_norm:
            q, k = RMSNorm(1e-5, name="attention.norm_q")(q), RMSNorm(1e-5, name="attention.norm_k")(k)
        mask = None if seen is None else seen[:, None, None]
        y = attention(rotate_pairs(q, angles), rotate_pairs(k, angles), v, mask)
        return Linear(width, False, name="attention.to_out.0")(merge_heads(y))

    def feed(self, x: jax.Array) -> jax.Array:
        """Wider, gated by an activation, and narrower."""
        inner = int(x.shape[-1] / 3 * 8)
        gate, up = (Linear(inner, False, name=f"feed_forward.{part}")(x) for part in ("w1", "w3"))
        return Linear(x.shape[-1], False, name="feed_forward.w2")(nn.silu(gate) * up)


class FinalLayer(nn.Module):
    """Tokens to patches: a norm, scaled by temb (b, d), and a linear map."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, temb: jax.Array) -> jax.Array:
        scale = 1 + Linear(x.shape[-1], name="adaLN_modulation.1")(nn.silu(temb))[:, None]
        return Linear(self.features, name="linear")(LayerNorm(1e-6, affine=False)(x) * scale)


def padded(x: jax.Array) -> jax.Array:
    """x (b, n, c) with zeros behind it, to a length that MULTIPLE divides."""
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % MULTIPLE), (0, 0)))
