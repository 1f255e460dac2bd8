"""QwenImageTransformer2DModel: the denoiser of Qwen-Image and Qwen-Image-Edit."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Count, Layers, between
from fdiff.models.layers.checks import check_axes, require
from fdiff.models.layers.embeddings import TimestepEmbedding, sinusoidal
from fdiff.models.layers.feed_forward import FeedForward
from fdiff.models.layers.joint_attention import JointAttention
from fdiff.models.layers.linear import Embed, Linear
from fdiff.models.layers.modulation import Modulation, modulated
from fdiff.models.layers.norm import RMSNorm
from fdiff.models.layers.repeated import repeated
from fdiff.models.layers.rotary import axes_angles
from fdiff.models.model import Model
from fdiff.models.transformer_flux import Both, share

TIME_FEATURES, TIME_SCALE, THETA = 256, 1000.0, 10000.0


class QwenImageTransformer2DModel(Model):
    """A transformer over squares of latents of pictures and the tokens of a text (Qwen Team 2025).

    sample (b, h, w, in_channels), a square of latents in each place, or (b, layers, h, w, in_channels) -> the same with
    patch_size^2 out_channels. `timestep` (b,) is sigma, from 1, noise, to 0. encoder_hidden_states (b, m,
    joint_attention_dim) are a text; where encoder_hidden_states_mask (b, m) is given, tokens that are 0 are none. What
    is `kept` are pictures (b, rows, columns, in_channels) to keep to, which zero_cond_t tells the time 0 in place of
    sigma. Networks with use_additional_t_cond are told 0 or 1, additional_t_cond (b,), besides. What a ControlNet
    gives, arrays (b, n, c) for all places, is added behind the blocks, each behind an equal share of them.

        velocity = transformer.apply({"params": params}, squares, sigma, tokens, mask)
    """

    ignored_keys: ClassVar[tuple[str, ...]] = ("pooled_projection_dim",)  # of a text that it was not given in the end

    patch_size: Annotated[int, between(1, 64)] = 2
    in_channels: Count = 64
    out_channels: Count | None = 16
    num_layers: Layers = 60
    attention_head_dim: Count = 128
    num_attention_heads: Count = 24
    joint_attention_dim: Count = 3584
    guidance_embeds: bool = False
    axes_dims_rope: tuple[Count, Count, Count] = (16, 56, 56)
    zero_cond_t: bool = False
    use_additional_t_cond: bool = False
    use_layer3d_rope: bool = False

    @nn.compact
    def __call__(
        self,
        sample: jax.Array,
        timestep: jax.Array | float,
        encoder_hidden_states: jax.Array,
        encoder_hidden_states_mask: jax.Array | None = None,
        kept: Sequence[jax.Array] = (),
        additional_t_cond: jax.Array | None = None,
        controlnet_block_samples: Sequence[jax.Array] = (),
    ) -> jax.Array:
        self.check(sample.shape, encoder_hidden_states.shape, [one.shape for one in kept], additional_t_cond)
        width, batch = self.num_attention_heads * self.attention_head_dim, len(sample)
        t = jnp.broadcast_to(jnp.asarray(timestep, jnp.float32), (batch,))
        temb = told(width, jnp.concatenate([t, 0 * t]) if self.zero_cond_t else t, additional_t_cond)
        now, still = jnp.split(temb, 2) if self.zero_cond_t else (temb, None)

        tokens = [one.reshape(batch, -1, self.in_channels) for one in (sample, *kept)]
        x = Linear(width, name="img_in")(jnp.concatenate(tokens, axis=1))
        y = Linear(width, name="txt_in")(RMSNorm(name="txt_norm")(encoder_hidden_states))
        layers = sample.shape[1] if sample.ndim == 5 else 1
        sizes = [*(sample.shape[-3:-1],) * layers, *(one.shape[1:3] for one in kept)]
        angles = axes_angles(places(y.shape[1], sizes, self.use_layer3d_rope), self.axes_dims_rope, THETA)
        mask, drawn = seen(encoder_hidden_states_mask, x.shape[:2]), tokens[0].shape[1]

        def step(block: Any, both: Both, i: Any) -> Both:
            x, y = block(*both, angles, mask, now, still, drawn)
            return x + share(controlnet_block_samples, i, self.num_layers), y

        heads = self.num_attention_heads
        x, _ = repeated(
            self, self.num_layers, lambda i: QwenImageTransformerBlock(heads, name=f"transformer_blocks.{i}"), step,
            (x, y),
        )  # fmt: skip
        scale, shift = Modulation(2, width, name="norm_out")(now)
        channels = self.patch_size**2 * (self.out_channels or self.in_channels)
        out = Linear(channels, name="proj_out")(modulated(x[:, :drawn], shift, scale))
        return out.reshape(*sample.shape[:-1], channels)

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        check_axes(self)
        require(not self.guidance_embeds, "guidance_embeds must be false: no such network is told the guidance.")

    def check(self, x: tuple[int, ...], y: tuple[int, ...], kept: Sequence[tuple[int, ...]], kind: Any) -> None:
        """Refuse options that do not fit together, and inputs that do not fit them."""
        self.check_options()
        if len(y) != 3 or y[2] != self.joint_attention_dim:
            raise ValueError(f"encoder_hidden_states must be (batch, number, {self.joint_attention_dim}); it is {y}.")
        for name, shape, most in (("sample", x, 5), *(("kept", one, 4) for one in kept)):
            if not 4 <= len(shape) <= most or shape[-1] != self.in_channels:
                raise ValueError(f"{name} must be (batch, height, width, {self.in_channels}); it is {shape}.")
        if (kind is None) == self.use_additional_t_cond:
            verb = "needs" if self.use_additional_t_cond else "takes no"
            raise ValueError(f"This QwenImageTransformer2DModel {verb} additional_t_cond; see use_additional_t_cond.")

    def example_inputs(self) -> tuple[Any, ...]:
        """One square of latents, a time and one token."""
        x, y = np.zeros((1, 1, 1, self.in_channels), np.float32), np.zeros((1, 1, self.joint_attention_dim), np.float32)
        kind = np.zeros(1, np.int32) if self.use_additional_t_cond else None
        return x, np.zeros(1, np.float32), y, None, (), kind


class QwenImageTransformerBlock(nn.Module):
    """Pictures x (b, n, c) and a text y (b, m, c), each with its own weights, attend to both together.

    `now` (b, d) modulates the text and the first `drawn` tokens of x; `still`, where it is given, those behind them.
    """

    heads: int

    @nn.compact
    def __call__(
        self, x: jax.Array, y: jax.Array, angles: jax.Array, mask: jax.Array | None, now: jax.Array,
        still: jax.Array | None, drawn: int,
    ) -> tuple[jax.Array, jax.Array]:  # fmt: skip
        width = x.shape[-1]
        to_picture, to_text = (Linear(6 * width, name=name) for name in ("img_mod.1", "txt_mod.1"))
        numbers, b = to_picture(nn.silu(now))[:, None], jnp.split(to_text(nn.silu(now))[:, None], 6, axis=-1)
        if still is not None:
            first = (jnp.arange(x.shape[1]) < drawn)[:, None]
            numbers = jnp.where(first, numbers, to_picture(nn.silu(still))[:, None])
        a = jnp.split(numbers, 6, axis=-1)
        attend = JointAttention(self.heads, name="attn")
        both = attend(modulated(x, a[0], a[1]), modulated(y, b[0], b[1]), angles, mask)
        x, y = x + a[2] * both[0], y + b[2] * both[1]
        feed, feed_text = (FeedForward(activation_fn="gelu-approximate", name=name) for name in ("img_mlp", "txt_mlp"))
        return x + a[5] * feed(modulated(x, a[3], a[4])), y + b[5] * feed_text(modulated(y, b[3], b[4]))


def told(width: int, t: jax.Array, kind: jax.Array | None = None) -> jax.Array:
    """The time, and 0 or 1 besides, as vectors (b, width)."""
    waves = sinusoidal(t, TIME_FEATURES, flip_sin_to_cos=True, freq_shift=0, scale=TIME_SCALE)
    temb = TimestepEmbedding(width, name="time_text_embed.timestep_embedder")(waves)
    if kind is not None:
        added = Embed(2, width, name="time_text_embed.addition_t_embedding")(kind)
        temb += jnp.tile(added, (len(t) // len(added), 1))
    return temb


def places(words: int, sizes: Sequence[tuple[int, ...]], layered: bool = False) -> jax.Array:
    """(m + n, 3): picture, row and column of each token; of a text all three are alike, past those of pictures.

    Rows and columns are counted from the middle. Where they are `layered`, the last picture is number -1.
    """
    parts = []
    for number, (rows, columns) in enumerate(sizes):
        if layered and number == len(sizes) - 1:
            number = -1
        row, column = np.indices((rows, columns)).reshape(2, -1)
        parts.append(np.stack([np.full(len(row), number), row + rows // 2 - rows, column + columns // 2 - columns]))
    past = max(side // 2 for one in sizes for side in one)
    if layered:
        past = max(past, len(sizes) - 1)
    text = np.tile(past + np.arange(words), (3, 1))
    return jnp.asarray(np.concatenate([text, *parts], axis=1).T, jnp.float32)


def seen(mask: jax.Array | None, tokens: tuple[int, ...]) -> jax.Array | None:
    """Where all may look, (b, 1, 1, m + n): at what the mask (b, m) of a text says, if any, and at `tokens` (b, n)."""
    if mask is None:
        return None
    return jnp.concatenate([mask != 0, jnp.ones(tokens, bool)], axis=1)[:, None, None]
