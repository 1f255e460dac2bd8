"""ErnieImageTransformer2DModel: the denoiser of ERNIE-Image."""

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Channels, Count, Epsilon, Layers, Theta, between
from fdiff.models.layers.activations import gelu
from fdiff.models.layers.checks import require
from fdiff.models.layers.embeddings import TimestepEmbedding, sinusoidal
from fdiff.models.layers.linear import Conv, Linear
from fdiff.models.layers.modulation import modulated
from fdiff.models.layers.norm import RMSNorm
from fdiff.models.layers.patches import from_patches
from fdiff.models.layers.repeated import repeated
from fdiff.models.layers.rotary import axes_angles
from fdiff.models.layers.self_attention import SelfAttention
from fdiff.models.model import Model


class ErnieImageTransformer2DModel(Model):
    """A transformer over the patches of latents and the tokens of a text in one sequence (Baidu 2026).

    sample (b, h, w, in_channels), h and w multiples of the patch -> (b, h, w, out_channels). `timestep` (b,) falls
    from 1000, noise, to 0. encoder_hidden_states (b, n, text_in_dim) are the tokens of a text; where
    encoder_attention_mask (b, n) is given, those that are 0, all at the end, are none.

        velocity = transformer.apply({"params": params}, latents, t, tokens, mask)
    """

    hidden_size: Count = 3072
    num_attention_heads: Count = 24
    num_layers: Layers = 24
    ffn_hidden_size: Count = 8192
    in_channels: Channels = 128
    out_channels: Channels = 128
    patch_size: Annotated[int, between(1, 64)] = 1
    text_in_dim: Count = 2560
    rope_theta: Theta = 256
    rope_axes_dim: tuple[Count, Count, Count] = (32, 48, 48)
    eps: Epsilon = 1e-6
    qk_layernorm: bool = True

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
        x = Conv(self.hidden_size, size, size, padding=0, name="x_embedder.proj")(sample)
        x, text = x.reshape(batch, -1, self.hidden_size), encoder_hidden_states
        if self.text_in_dim != self.hidden_size:
            text = Linear(self.hidden_size, False, name="text_proj")(text)
        own = jnp.ones(text.shape[:2], bool) if encoder_attention_mask is None else encoder_attention_mask != 0
        seen = jnp.concatenate([jnp.ones(x.shape[:2], bool), own], axis=1)[:, None, None]
        angles = self.angles(own.sum(-1), text.shape[1], height // size, width // size)

        t = jnp.broadcast_to(jnp.asarray(timestep), (batch,))
        temb = TimestepEmbedding(self.hidden_size, name="time_embedding")(sinusoidal(t, self.hidden_size, freq_shift=0))
        numbers = Linear(6 * self.hidden_size, name="adaLN_modulation.1")(nn.silu(temb))
        modulation = jnp.split(numbers[:, None], 6, axis=-1)
        both = jnp.concatenate([x, text.astype(x.dtype)], axis=1)
        sizes = self.num_attention_heads, self.ffn_hidden_size, self.eps
        both = repeated(
            self, self.num_layers, lambda i: ErnieImageBlock(*sizes, name=f"layers.{i}"),
            lambda block, x, i: block(x, angles, seen, modulation), both,
        )  # fmt: skip
        scale, shift = jnp.split(Linear(2 * self.hidden_size, name="final_norm.linear")(temb)[:, None], 2, axis=-1)
        last = modulated(both[:, : x.shape[1]], shift, scale, self.eps)
        return from_patches(Linear(size**2 * self.out_channels, name="final_linear")(last), height, width, size)

    def angles(self, lengths: jax.Array, length: int, rows: int, columns: int) -> jax.Array:
        """Rotary angles (b, rows columns + length, d / 2): patches are at (length of the text, row, column), words at
        (number, 0, 0).
        """
        grid = np.indices((1, rows, columns)).reshape(3, -1).T
        picture = jnp.asarray(grid, jnp.float32) + lengths[:, None, None] * np.array([1, 0, 0])
        words = np.pad(np.arange(length)[:, None], ((0, 0), (0, 2)))
        places = jnp.concatenate([picture, jnp.broadcast_to(words, (len(lengths), length, 3))], axis=1)
        return axes_angles(places, self.rope_axes_dim, self.rope_theta)

    def check_options(self) -> None:
        """Refuse options that no such network has, or that do not fit together."""
        require(self.qk_layernorm, "qk_layernorm must be true: without it there is no such network.")
        sizes, heads = self.rope_axes_dim, self.num_attention_heads
        good = sum(sizes) * heads == self.hidden_size
        require(good, f"rope_axes_dim {sizes} must add up to {self.hidden_size} / {heads}, the features of a head.")
        odd = [size for size in sizes if size % 2]
        require(not odd, f"rope_axes_dim {sizes} must be even, since pairs of numbers are turned.")

    def check(self, sample: tuple[int, ...], text: tuple[int, ...]) -> None:
        """Refuse options that do not fit together, and inputs that do not fit them."""
        self.check_options()
        size = self.patch_size
        if len(sample) != 4 or sample[3] != self.in_channels or sample[1] % size or sample[2] % size:
            raise ValueError(f"sample must be (batch, height, width, {self.in_channels}), height and width multiples "
                             f"of {size}; it is {sample}.")
        if len(text) != 3 or text[2] != self.text_in_dim:
            raise ValueError(f"encoder_hidden_states must be (batch, number, {self.text_in_dim}); it is {text}.")

    def example_inputs(self) -> tuple[Any, ...]:
        """One patch, a time and one token."""
        sample = np.zeros((1, self.patch_size, self.patch_size, self.in_channels), np.float32)
        return sample, np.zeros(1, np.float32), np.zeros((1, 1, self.text_in_dim), np.float32)


class ErnieImageBlock(nn.Module):
    """Self-attention and a gated feed-forward network, both shifted, scaled and gated as in all blocks: (b, n, c)."""

    heads: int
    inner: int
    eps: float

    @nn.compact
    def __call__(self, x: jax.Array, angles: jax.Array, seen: jax.Array, modulation: list[jax.Array]) -> jax.Array:
        shift, scale, gate, shift_feed, scale_feed, gate_feed = modulation
        attend = SelfAttention(self.heads, self.eps, turn=turn_unequally, name="self_attention")
        y = attend(RMSNorm(self.eps, name="adaLN_sa_ln")(x) * (1 + scale) + shift, angles, seen)
        x += gate * y
        return x + gate_feed * self.feed(RMSNorm(self.eps, name="adaLN_mlp_ln")(x) * (1 + scale_feed) + shift_feed)

    def feed(self, x: jax.Array) -> jax.Array:
        """Wider, gated by an activation, and narrower."""
        gate, up = (Linear(self.inner, False, name=f"mlp.{name}_proj")(x) for name in ("gate", "up"))
        return Linear(x.shape[-1], False, name="mlp.linear_fc2")(up * gelu(gate))


def turn_unequally(x: jax.Array, angles: jax.Array) -> jax.Array:
    """x (b, n, heads, d) by angles (b, n, d / 2) as the network has learned it, which is no rotation.

    Number k goes with number k + d / 2, as in `rotate_halves`, but each has the angle that it has in `rotate_pairs`.
    """
    own = jnp.repeat(angles, 2, axis=-1)[..., None, :]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    crossed = jnp.concatenate([-second, first], axis=-1)
    return (x * jnp.cos(own) + crossed * jnp.sin(own)).astype(x.dtype)
