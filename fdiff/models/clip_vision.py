"""CLIP's vision towers (Radford et al. 2021): pictures to embeddings."""

from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Activation, Channels, Count, Epsilon, Layers, Pixels
from fdiff.models.layers.checks import check_tower, require
from fdiff.models.layers.clip import CLIPEncoder
from fdiff.models.layers.linear import Conv, Embed, Linear
from fdiff.models.layers.norm import LayerNorm
from fdiff.models.layers.parameter import parameter
from fdiff.models.model import Model


class CLIPVisionOutput(NamedTuple):
    """What a vision tower computes from pictures (b, h, w, c), n being 1 + the number of patches."""

    last_hidden_state: jax.Array  # (b, n, hidden_size), not normalized
    pooler_output: jax.Array  # (b, hidden_size), the normalized first token
    hidden_states: tuple[jax.Array, ...]  # the embeddings and what leaves each layer


class CLIPVisionProjection(NamedTuple):
    """The same, where the tower has a projection."""

    image_embeds: jax.Array  # (b, projection_dim), the projected pooler_output
    last_hidden_state: jax.Array
    pooler_output: jax.Array
    hidden_states: tuple[jax.Array, ...]


class CLIPVisionModel(Model):
    """A vision transformer: pictures (b, image_size, image_size, 3) -> CLIPVisionOutput.

    The pictures are normalized with CLIP's mean and deviation, as preprocessor_config.json says.
    """

    weights_name: ClassVar[str] = "model"
    model_type: ClassVar[str | None] = "clip_vision_model"

    hidden_size: Count = 768
    intermediate_size: Count = 3072
    num_hidden_layers: Layers = 12
    num_attention_heads: Count = 12
    num_channels: Channels = 3
    image_size: Pixels = 224
    patch_size: Pixels = 32
    hidden_act: Activation = "quick_gelu"
    layer_norm_eps: Epsilon = 1e-5

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        check_tower(self)
        good = self.patch_size <= self.image_size
        require(good, f"patch_size {self.patch_size} must not exceed image_size {self.image_size}.")

    def example_inputs(self) -> tuple[Any, ...]:
        """One picture, which takes no memory."""
        shape = (1, self.image_size, self.image_size, self.num_channels)
        return (np.broadcast_to(np.float32(0), shape),)

    @nn.compact
    def __call__(self, pixel_values: jax.Array) -> CLIPVisionOutput:
        return _vision_tower(self, pixel_values)


class CLIPVisionModelWithProjection(Model):
    """CLIPVisionModel with a linear map of the pooled output: the image encoder of IP-Adapter and others."""

    weights_name: ClassVar[str] = "model"
    model_type: ClassVar[str | None] = "clip_vision_model"

    hidden_size: Count = 768
    intermediate_size: Count = 3072
    projection_dim: Count = 512
    num_hidden_layers: Layers = 12
    num_attention_heads: Count = 12
    num_channels: Channels = 3
    image_size: Pixels = 224
    patch_size: Pixels = 32
    hidden_act: Activation = "quick_gelu"
    layer_norm_eps: Epsilon = 1e-5

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        check_tower(self)
        good = self.patch_size <= self.image_size
        require(good, f"patch_size {self.patch_size} must not exceed image_size {self.image_size}.")

    def example_inputs(self) -> tuple[Any, ...]:
        """One picture, which takes no memory."""
        shape = (1, self.image_size, self.image_size, self.num_channels)
        return (np.broadcast_to(np.float32(0), shape),)

    @nn.compact
    def __call__(self, pixel_values: jax.Array) -> CLIPVisionProjection:
        output = _vision_tower(self, pixel_values)
        projection = Linear(self.projection_dim, use_bias=False, name="visual_projection")
        return CLIPVisionProjection(projection(output.pooler_output), *output)


class CLIPVisionEmbeddings(nn.Module):
    """A token for the class and one for each patch, with their places added: (b, h, w, 3) -> (b, n, c)."""

    features: int
    patch_size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        patches = Conv(self.features, self.patch_size, self.patch_size, 0, use_bias=False, name="patch_embedding")(x)
        patches = patches.reshape(x.shape[0], -1, self.features)
        first = parameter(self, "class_embedding", nn.initializers.normal(self.features**-0.5), (self.features,))
        first = jnp.broadcast_to(first, (x.shape[0], 1, self.features))
        x = jnp.concatenate([first, patches], axis=1)
        return x + Embed(x.shape[1], self.features, name="position_embedding")(jnp.arange(x.shape[1]))


def _vision_tower(model: CLIPVisionModel | CLIPVisionModelWithProjection, pixel_values: jax.Array) -> CLIPVisionOutput:
    """What both classes compute. The submodules made here belong to the module whose __call__ runs."""
    expected = (model.image_size, model.image_size, model.num_channels)
    if pixel_values.shape[1:] != expected:
        raise ValueError(f"pictures are {pixel_values.shape[1:]}, but the vision encoder reads {expected}.")
    embeddings = CLIPVisionEmbeddings(model.hidden_size, model.patch_size, name="vision_model.embeddings")
    norm = LayerNorm(model.layer_norm_eps, name="vision_model.pre_layrnorm")  # so spelt in every checkpoint
    states = CLIPEncoder(
        model.num_hidden_layers,
        model.num_attention_heads,
        model.intermediate_size,
        model.hidden_act,
        model.layer_norm_eps,
        name="vision_model.encoder",
    )(norm(embeddings(pixel_values)))
    pooled = LayerNorm(model.layer_norm_eps, name="vision_model.post_layernorm")(states[-1][:, 0])
    return CLIPVisionOutput(states[-1], pooled, states)
