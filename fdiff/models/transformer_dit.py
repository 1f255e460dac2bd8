"""DiTTransformer2DModel: the denoiser of DiT, of latents or pixels of a class."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Channels, Count, Dropout, Epsilon, Layers, OneOf, Pixels, between
from fdiff.models.layers.attention import Attention
from fdiff.models.layers.checks import require
from fdiff.models.layers.embeddings import TimestepEmbedding, sine_places, sinusoidal
from fdiff.models.layers.feed_forward import ACTIVATIONS, FeedForward
from fdiff.models.layers.linear import Conv, Embed, Linear
from fdiff.models.layers.modulation import Modulation, modulated
from fdiff.models.layers.norm import LayerNorm
from fdiff.models.layers.patches import from_patches
from fdiff.models.layers.repeated import repeated
from fdiff.models.model import Model

TIME_FEATURES = 256


class DiTTransformer2DModel(Model):
    """A transformer over the patches of a noisy picture or latent, told its time and its class (Peebles and Xie 2023).

    sample (b, h, w, in_channels), h and w multiples of patch_size -> (b, h, w, out_channels). `timestep` is a number or
    (b,), `class_labels` are integers (b,) from 0 to num_embeds_ada_norm, of which the last is "no class", and what is
    told where none are given. Dropout acts where `apply` is given rngs={"dropout": key}.

        model, params = DiTTransformer2DModel.from_pretrained("facebook/DiT-XL-2-256", subfolder="transformer")
        out = model.apply({"params": params}, latents, t, labels)
    """

    # Of the Transformer2DModel that it was once a kind of; diffusers 0.42 reads none of them for DiT.
    ignored_keys: ClassVar[tuple[str, ...]] = (
        "attention_type", "caption_channels", "cross_attention_dim", "double_self_attention", "interpolation_scale",
        "num_vector_embeds", "only_cross_attention", "use_additional_conditions", "use_linear_projection",
    )  # fmt: skip

    num_attention_heads: Count = 16
    attention_head_dim: Count = 72
    in_channels: Channels = 4
    out_channels: Channels | None = None
    num_layers: Layers = 28
    dropout: Dropout = 0.0
    norm_num_groups: Count = 32  # which nothing reads
    attention_bias: bool = True
    sample_size: Pixels = 32
    patch_size: Annotated[int, between(1, 64)] = 2
    activation_fn: Annotated[str, OneOf(ACTIVATIONS)] = "gelu-approximate"
    num_embeds_ada_norm: Count = 1000
    upcast_attention: bool = False  # the softmax is float32 always
    norm_type: Annotated[str, OneOf(("ada_norm_zero",))] = "ada_norm_zero"
    norm_elementwise_affine: bool = False
    norm_eps: Epsilon = 1e-5

    @nn.compact
    def __call__(
        self, sample: jax.Array, timestep: jax.Array | float, class_labels: jax.Array | None = None
    ) -> jax.Array:
        self.check(sample.shape)
        batch, height, width, _ = sample.shape
        t = jnp.broadcast_to(jnp.asarray(timestep), (batch,))
        labels = jnp.full((batch,), self.num_embeds_ada_norm) if class_labels is None else class_labels
        x = Conv(self.width, self.patch_size, self.patch_size, 0, name="pos_embed.proj")(sample)
        x = x + self.places(*x.shape[1:3]).astype(x.dtype)
        x = x.reshape(batch, -1, self.width)

        def step(block: Any, both: tuple[jax.Array, jax.Array], i: Any) -> tuple[jax.Array, jax.Array]:
            x, told = block(both[0], t, labels)
            if isinstance(i, int):
                return x, both[1] if i else told
            return x, jnp.where(i == 0, told, both[1])

        x, told = repeated(self, self.num_layers, self.block, step, (x, jnp.zeros((batch, self.width), x.dtype)))
        numbers = Linear(2 * self.width, name="proj_out_1")(nn.silu(told))[:, None]
        shift, scale = jnp.split(numbers, 2, axis=-1)
        channels = self.out_channels or self.in_channels
        x = Linear(self.patch_size**2 * channels, name="proj_out_2")(modulated(x, shift, scale))
        return from_patches(x, height, width, self.patch_size)

    @property
    def width(self) -> int:
        """Features of a patch."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def num_class_embeds(self) -> int:
        """How many classes there are, "no class" included, as U-Nets call it."""
        return self.num_embeds_ada_norm + 1

    def block(self, i: int) -> "DiTBlock":
        """The i-th block."""
        return DiTBlock(
            self.num_attention_heads, self.attention_head_dim, self.num_class_embeds, self.dropout, self.attention_bias,
            self.activation_fn, self.norm_elementwise_affine, self.norm_eps, name=f"transformer_blocks.{i}",
        )  # fmt: skip

    def places(self, rows: int, columns: int) -> jax.Array:
        """Where patches are (rows, columns, width): sin and cos of the column, then of the row, in units of those
        that it was trained on.
        """
        base = self.sample_size // self.patch_size
        row, column = (jnp.arange(count) * base / count for count in (rows, columns))
        return sine_places(row, column, self.width)

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        good = self.width % 4 == 0
        require(good, f"num_attention_heads * attention_head_dim is {self.width}; it must be a multiple of 4.")
        size, patch = self.sample_size, self.patch_size
        require(size % patch == 0, f"sample_size {size} is no multiple of patch_size {patch}; choose one.")

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse options that do not fit together, and a sample of the wrong shape."""
        self.check_options()
        size = self.patch_size
        if len(shape) != 4 or shape[3] != self.in_channels or shape[1] % size or shape[2] % size:
            raise ValueError(f"sample must be (batch, height, width, {self.in_channels}), height and width multiples "
                             f"of {size}; it is {shape}.")

    def example_inputs(self) -> tuple[Any, ...]:
        """One patch, a time and a class."""
        sample = np.zeros((1, self.patch_size, self.patch_size, self.in_channels), np.float32)
        return sample, np.ones(1, np.int32), np.zeros(1, np.int32)


class DiTBlock(nn.Module):
    """Attention and a feed-forward layer, normalized and gated as time and class say (adaLN-Zero, section 3.2).

    x (b, n, c), t (b,), labels (b,) -> x, and what it was told as a vector (b, c): each block reads time and class with
    weights of its own.
    """

    heads: int
    dim_head: int
    classes: int
    dropout: float
    attention_bias: bool
    activation_fn: str
    affine: bool
    eps: float

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        width = x.shape[-1]
        waves = sinusoidal(t, TIME_FEATURES, flip_sin_to_cos=True)
        told = TimestepEmbedding(width, name="norm1.emb.timestep_embedder")(waves)
        told += Embed(self.classes, width, name="norm1.emb.class_embedder.embedding_table")(labels)
        a = Modulation(6, width, name="norm1")(told)
        attend = Attention(self.heads, self.dim_head, self.attention_bias, dropout=self.dropout, name="attn1")
        x += a[2] * attend(modulated(x, a[0], a[1]))
        y = LayerNorm(self.eps, self.affine, name="norm3")(x) * (1 + a[4]) + a[3]
        feed = FeedForward(activation_fn=self.activation_fn, dropout=self.dropout, name="ff")
        return x + a[5] * feed(y), told


def is_dit(config: Mapping[str, Any]) -> bool:
    """Whether the config of a Transformer2DModel, as it was once called, is that of a DiT."""
    return config.get("norm_type") == "ada_norm_zero" and config.get("patch_size") is not None
