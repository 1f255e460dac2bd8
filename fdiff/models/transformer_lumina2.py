"""Lumina2Transformer2DModel: the denoiser of Lumina 2."""

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Channels, Count, Depth, Epsilon, Factor, Layers, Pixels, between
from fdiff.models.layers.checks import require
from fdiff.models.layers.embeddings import TimestepEmbedding, sinusoidal
from fdiff.models.layers.linear import Linear
from fdiff.models.layers.modulation import Modulation
from fdiff.models.layers.norm import LayerNorm, RMSNorm
from fdiff.models.layers.patches import from_patches, to_patches
from fdiff.models.layers.repeated import repeated
from fdiff.models.layers.rotary import axes_angles
from fdiff.models.layers.self_attention import SelfAttention
from fdiff.models.model import Model

TIME_FEATURES = 256  # of the time, before it is embedded
MOST_TIME_FEATURES = 1024  # afterwards
THETA = 10000.0


class Lumina2Transformer2DModel(Model):
    """A transformer over the patches of latents and the tokens of a text in one sequence (Qin et al. 2025).

    sample (b, h, w, in_channels), h and w multiples of the patch -> (b, h, w, out_channels). `timestep` (b,) runs from
    0, noise, to 1, and what comes out points from noise to data: both against the scheduler's direction.
    encoder_hidden_states (b, n, cap_feat_dim) are the tokens of a text; where encoder_attention_mask (b, n) is given,
    those that are 0, all at the end, are none.

        velocity = transformer.apply({"params": params}, latents, 1 - sigma, tokens, mask)
    """

    sample_size: Pixels = 128
    patch_size: Annotated[int, between(1, 64)] = 2
    in_channels: Channels = 16
    out_channels: Channels | None = None
    hidden_size: Count = 2304
    num_layers: Layers = 26
    num_refiner_layers: Depth = 2
    num_attention_heads: Count = 24
    num_kv_heads: Count | None = 8
    multiple_of: Count = 256
    ffn_dim_multiplier: Factor | None = None
    norm_eps: Epsilon = 1e-5
    scaling_factor: Factor = 1.0  # which nothing reads
    axes_dim_rope: tuple[Count, Count, Count] = (32, 32, 32)
    axes_lens: tuple[Count, Count, Count] = (300, 512, 512)
    cap_feat_dim: Count = 1024

    @nn.compact
    def __call__(
        self,
        sample: jax.Array,
        timestep: jax.Array | float,
        encoder_hidden_states: jax.Array,
        encoder_attention_mask: jax.Array | None = None,
    ) -> jax.Array:
        self.check(sample.shape, encoder_hidden_states.shape)
        (batch, height, width, _), size = sample.shape, self.patch_size
        t = jnp.broadcast_to(jnp.asarray(timestep, jnp.float32), (batch,))
        waves = sinusoidal(t, TIME_FEATURES, flip_sin_to_cos=True, freq_shift=0)
        features = min(self.hidden_size, MOST_TIME_FEATURES)
        temb = TimestepEmbedding(features, name="time_caption_embed.timestep_embedder")(waves)
        text = RMSNorm(self.norm_eps, name="time_caption_embed.caption_embedder.0")(encoder_hidden_states)
        text = Linear(self.hidden_size, name="time_caption_embed.caption_embedder.1")(text)
        x = Linear(self.hidden_size, name="x_embedder")(to_patches(sample, size))

        own = jnp.ones(text.shape[:2], bool) if encoder_attention_mask is None else encoder_attention_mask != 0
        seen = jnp.concatenate([jnp.ones(x.shape[:2], bool), own], axis=1)[:, None, None]
        text_angles, angles = self.angles(own.sum(-1), text.shape[1], height // size, width // size)
        text = self.through("context_refiner", self.num_refiner_layers, text, text_angles, own[:, None, None])
        x = self.through("noise_refiner", self.num_refiner_layers, x, angles, None, temb)
        both = jnp.concatenate([x, text.astype(x.dtype)], axis=1)
        angles = jnp.concatenate([angles, text_angles], axis=1)
        both = self.through("layers", self.num_layers, both, angles, seen, temb)
        scale = Linear(self.hidden_size, name="norm_out.linear_1")(nn.silu(temb))[:, None]
        last = LayerNorm(1e-6, affine=False)(both[:, : x.shape[1]]) * (1 + scale)
        patches = Linear(size**2 * (self.out_channels or self.in_channels), name="norm_out.linear_2")(last)
        return from_patches(patches, height, width, size)

    def through(self, name: str, count: int, x: jax.Array, *others: Any) -> jax.Array:
        """What so many blocks make of x."""
        inner = int((self.ffn_dim_multiplier or 1) * 4 * self.hidden_size)
        inner += -inner % self.multiple_of
        sizes = self.num_attention_heads, self.num_kv_heads, inner, self.norm_eps
        return repeated(
            self, count, lambda i: Lumina2TransformerBlock(*sizes, name=f"{name}.{i}"),
            lambda block, x, i: block(x, *others), x,
        )  # fmt: skip

    def angles(self, lengths: jax.Array, length: int, rows: int, columns: int) -> tuple[jax.Array, jax.Array]:
        """Rotary angles of the tokens of the text (b, length, d / 2), and of the patches (b, rows columns, d / 2).

        Words are at (number, 0, 0), and patches at (length (b,) of the text, row, column).
        """
        words = np.pad(np.arange(length)[:, None], ((0, 0), (0, 2)))
        grid = np.indices((1, rows, columns)).reshape(3, -1).T
        picture = jnp.asarray(grid, jnp.float32) + lengths[:, None, None] * np.array([1, 0, 0])
        parts = jnp.broadcast_to(words, (len(lengths), length, 3)), picture
        text, patches = (axes_angles(part, self.axes_dim_rope, THETA) for part in parts)
        return text, patches

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        sizes, heads, shared = self.axes_dim_rope, self.num_attention_heads, self.num_kv_heads
        good = sum(sizes) * heads == self.hidden_size
        require(good, f"axes_dim_rope {sizes} must add up to hidden_size / heads, {self.hidden_size} / {heads}.")
        odd = [size for size in sizes if size % 2]
        require(not odd, f"axes_dim_rope {sizes} must be even, since pairs of numbers are turned.")
        require(heads % (shared or heads) == 0, f"num_kv_heads {shared} must divide num_attention_heads {heads}.")
        require(self.axes_lens[0] > 1, "axes_lens[0] must exceed 1, or no text fits.")

    def check(self, sample: tuple[int, ...], text: tuple[int, ...]) -> None:
        """Refuse options that do not fit together, and inputs that do not fit them."""
        self.check_options()
        size = self.patch_size
        if len(sample) != 4 or sample[3] != self.in_channels or sample[1] % size or sample[2] % size:
            raise ValueError(f"sample must be (batch, height, width, {self.in_channels}), height and width multiples "
                             f"of {size}; it is {sample}.")
        if len(text) != 3 or text[2] != self.cap_feat_dim:
            raise ValueError(f"encoder_hidden_states must be (batch, number, {self.cap_feat_dim}); they are {text}.")
        last = text[1], sample[1] // size - 1, sample[2] // size - 1
        if any(place >= most for place, most in zip(last, self.axes_lens, strict=True)):
            raise ValueError(
                f"A text of {text[1]} tokens with latents of {sample[1]} x {sample[2]} is too large for "
                f"axes_lens {self.axes_lens}; shorten the text or draw a smaller picture."
            )

    def example_inputs(self) -> tuple[Any, ...]:
        """One patch, a time and one token."""
        sample = np.zeros((1, self.patch_size, self.patch_size, self.in_channels), np.float32)
        return sample, np.zeros(1, np.float32), np.zeros((1, 1, self.cap_feat_dim), np.float32)


class Lumina2TransformerBlock(nn.Module):
    """Self-attention and a gated feed-forward network, normalized before and after, and added to x (b, n, c).

    With temb (b, d), each input is scaled by it and each output gated. `mask` is that of `SelfAttention`.
    """

    heads: int
    kv_heads: int | None
    inner: int
    eps: float

    @nn.compact
    def __call__(
        self, x: jax.Array, angles: jax.Array, mask: jax.Array | None, temb: jax.Array | None = None
    ) -> jax.Array:
        a: list[jax.Array | float] = [0.0, 1.0, 0.0, 1.0]
        first = "norm1"
        if temb is not None:
            scale, gate, scale_feed, gate_feed = Modulation(4, x.shape[-1], name="norm1")(temb)
            a, first = [scale, jnp.tanh(gate), scale_feed, jnp.tanh(gate_feed)], "norm1.norm"
        attend = SelfAttention(self.heads, 1e-5, self.kv_heads, name="attn")
        y = attend(self.norm(first, x) * (1 + a[0]), angles, mask)
        x += a[1] * self.norm("norm2", y)
        y = self.feed(self.norm("ffn_norm1", x) * (1 + a[2]))
        return x + a[3] * self.norm("ffn_norm2", y)

    def norm(self, name: str, x: jax.Array) -> jax.Array:
        """Normalize the last axis."""
        return RMSNorm(self.eps, name=name)(x)

    def feed(self, x: jax.Array) -> jax.Array:
        """Wider, gated by an activation, and narrower."""
        gate, up = (Linear(self.inner, False, name=f"feed_forward.linear_{i}")(x) for i in (1, 3))
        return Linear(x.shape[-1], False, name="feed_forward.linear_2")(nn.silu(gate) * up)
