"""SD3Transformer2DModel: the denoiser of Stable Diffusion 3 and 3.5."""

from collections.abc import Sequence
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Channels, Count, Layers, OneOf, Pixels, between
from fdiff.models.layers.attention import Attention
from fdiff.models.layers.checks import require
from fdiff.models.layers.embeddings import TimestepEmbedding, sine_places, sinusoidal
from fdiff.models.layers.feed_forward import FeedForward
from fdiff.models.layers.joint_attention import JointAttention
from fdiff.models.layers.linear import Conv, Linear
from fdiff.models.layers.modulation import Modulation, modulated
from fdiff.models.layers.parameter import parameter
from fdiff.models.layers.patches import from_patches
from fdiff.models.layers.repeated import at, repeated
from fdiff.models.model import Model

TIME_FEATURES = 256
Norm = Annotated[str, OneOf(("rms_norm",))]


class SD3Transformer2DModel(Model):
    """A transformer over the patches of a picture and the tokens of a text (Esser et al. 2024).

    hidden_states (b, h, w, in_channels) are latents; encoder_hidden_states (b, m, joint_attention_dim) and
    pooled_projections (b, pooled_projection_dim) are a text, as T5 and CLIP read it; `timestep` (b,) goes from 1000,
    noise, to 0. What a ControlNet gives, arrays (b, n, c), is added behind all blocks but the last, each behind an
    equal share of them. `skip_layers` (b, num_layers) is True where a block is left out. -> (b, h, w, out_channels).
    """

    sample_size: Pixels = 128
    patch_size: Annotated[int, between(1, 64)] = 2
    in_channels: Channels = 16
    num_layers: Layers = 18
    attention_head_dim: Count = 64
    num_attention_heads: Count = 18
    joint_attention_dim: Count = 4096
    caption_projection_dim: Count = 1152
    pooled_projection_dim: Count = 2048
    out_channels: Channels | None = 16
    pos_embed_max_size: Annotated[int, between(1, 1024)] = 96
    dual_attention_layers: tuple[Annotated[int, between(0, 99)], ...] = ()
    qk_norm: Norm | None = None

    @nn.compact
    def __call__(
        self,
        hidden_states: jax.Array,
        encoder_hidden_states: jax.Array,
        pooled_projections: jax.Array,
        timestep: jax.Array | float,
        block_controlnet_hidden_states: Sequence[jax.Array] = (),
        skip_layers: jax.Array | None = None,
    ) -> jax.Array:
        self.check_options()
        batch, height, width, _ = hidden_states.shape
        check_text(self, encoder_hidden_states.shape, pooled_projections.shape)
        x = Patches(self.width, self.patch_size, self.pos_embed_max_size, self.base, name="pos_embed")(hidden_states)
        temb = TimeAndText(self.width, name="time_text_embed")(jnp.broadcast_to(timestep, (batch,)), pooled_projections)
        y = Linear(self.caption_projection_dim, name="context_embedder")(encoder_hidden_states)
        last, said = self.num_layers - 1, block_controlnet_hidden_states

        def make(i: int) -> "JointTransformerBlock":
            dual = i in self.dual_attention_layers
            name = f"transformer_blocks.{i}"
            return JointTransformerBlock(self.num_attention_heads, self.qk_norm, dual, i == last, name=name)

        def step(block: Any, before: tuple[jax.Array, jax.Array], i: Any) -> tuple[jax.Array, jax.Array]:
            x, y = block(*before, temb)
            if skip_layers is not None:
                out = skip_layers[:, i, None, None]
                x, y = jnp.where(out, before[0], x), jnp.where(out, before[1], y)
            if said and not block.last:
                x = x + at(said, i * len(said) // self.num_layers)
            return x, y

        x, y = repeated(self, self.num_layers, make, step, (x, y))
        scale, shift = Modulation(2, self.width, name="norm_out")(temb)
        channels = self.out_channels or self.in_channels
        x = Linear(self.patch_size**2 * channels, name="proj_out")(modulated(x, shift, scale))
        return from_patches(x, height, width, self.patch_size)

    @property
    def width(self) -> int:
        """Features of a patch."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def base(self) -> int:
        """Patches along a side of the pictures that it was first trained on."""
        return self.sample_size // self.patch_size

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        check_joint(self)

    def example_inputs(self) -> tuple[Any, ...]:
        """One patch and one token."""
        x = np.zeros((1, self.patch_size, self.patch_size, self.in_channels), np.float32)
        y = np.zeros((1, 1, self.joint_attention_dim), np.float32)
        return x, y, np.zeros((1, self.pooled_projection_dim), np.float32), np.zeros(1, np.float32)


def check_joint(model: Any) -> None:
    """Refuse options of such a transformer, or a ControlNet of one, that do not fit together."""
    text, width = model.caption_projection_dim, model.width
    require(text == width, f"caption_projection_dim {text} must be num_attention_heads * attention_head_dim, "
                           f"{width}, since both attend together.")  # fmt: skip
    require(width % 4 == 0, f"num_attention_heads * attention_head_dim is {width}; it must be a multiple of 4.")
    size, patch = model.sample_size, model.patch_size
    require(size % patch == 0, f"sample_size {size} is no multiple of patch_size {patch}; choose one.")


def check_text(model: Any, text: tuple[int, ...], pooled: tuple[int, ...]) -> None:
    """Refuse a text of other widths than the model reads."""
    wanted = model.joint_attention_dim, model.pooled_projection_dim
    if len(text) != 3 or len(pooled) != 2 or (text[-1], pooled[-1]) != wanted:
        raise ValueError(f"encoder_hidden_states must be (batch, number, {wanted[0]}) and pooled_projections (batch, "
                         f"{wanted[1]}); they are {text} and {pooled}.")


class Patches(nn.Module):
    """Latents (b, h, w, c) as patches (b, n, features), with where they are, from the middle of a table of the file.

    most: along a side of the table, None without one. base: along a side of what it was made for.
    """

    features: int
    size: int
    most: int | None
    base: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size, (height, width) = self.size, (side // self.size for side in x.shape[1:3])
        most = self.most or max(height, width)
        if x.shape[1] % size or x.shape[2] % size or max(height, width) > most:
            raise ValueError(f"{x.shape[1]} x {x.shape[2]} latents cannot be cut into patches of {size} x {size}, "
                             f"{most} along a side at most; choose such a size.")
        patches = Conv(self.features, size, size, 0, name="proj")(x)
        if self.most is not None:
            init, shape = lambda *_: table(most, self.base, self.features), (1, most**2, self.features)
            places = parameter(self, "pos_embed", init, shape)
            grid = jax.lax.stop_gradient(places).reshape(most, most, self.features)  # no training changes it
            top, left = (most - height) // 2, (most - width) // 2
            patches += grid[top : top + height, left : left + width].astype(patches.dtype)
        return patches.reshape(x.shape[0], -1, self.features)


def table(most: int, base: int, features: int) -> jax.Array:
    """Where patches are, (1, most^2, features), of a model that is not trained yet."""
    side = jnp.arange(most) * base / most
    return sine_places(side, side, features).reshape(1, -1, features)


class TimeAndText(nn.Module):
    """Time (b,) and a text (b, d) as one vector (b, features)."""

    features: int

    @nn.compact
    def __call__(self, t: jax.Array, text: jax.Array) -> jax.Array:
        waves = sinusoidal(t, TIME_FEATURES, flip_sin_to_cos=True, freq_shift=0).astype(text.dtype)
        told = TimestepEmbedding(self.features, name="timestep_embedder")(waves)
        return told + TimestepEmbedding(self.features, name="text_embedder")(text)


class JointTransformerBlock(nn.Module):
    """Pictures x (b, n, c) and a text y (b, m, c), each with its own weights, attend to both together.

    dual: pictures attend to themselves besides. last: the text is only looked at, since nothing reads it any more.
    """

    heads: int
    qk_norm: str | None = None
    dual: bool = False
    last: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, y: jax.Array, temb: jax.Array) -> tuple[jax.Array, jax.Array]:
        width = x.shape[-1]
        a = Modulation(9 if self.dual else 6, width, name="norm1")(temb)
        b = Modulation(2 if self.last else 6, width, name="norm1_context")(temb)
        shift, scale = reversed(b) if self.last else b[:2]
        attend = JointAttention(self.heads, normalizes=self.qk_norm is not None, answers=not self.last, name="attn")
        seen = attend(modulated(x, a[0], a[1]), modulated(y, shift, scale))
        given, x = x, x + a[2] * seen[0]
        if self.dual:
            own = Attention(self.heads, width // self.heads, True, eps=1e-6, qk_norm=self.qk_norm, name="attn2")
            x = x + a[8] * own(modulated(given, a[6], a[7]))
        x = x + a[5] * FeedForward(activation_fn="gelu-approximate", name="ff")(modulated(x, a[3], a[4]))
        if self.last:
            return x, y
        y = y + b[2] * seen[1]
        return x, y + b[5] * FeedForward(activation_fn="gelu-approximate", name="ff_context")(modulated(y, b[3], b[4]))
