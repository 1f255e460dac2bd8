"""What conditional U-Nets are told: the time, classes, and embeddings of text, of images and of both.

The functions are called inside the compact `__call__` of UNet2DConditionModel and ControlNetModel; `model` is
that model, whose fields they read.
"""

import functools
from collections.abc import Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.messages import show
from fdiff.models.fields import OneOf
from fdiff.models.layers.activations import activation
from fdiff.models.layers.attention import attention, split_heads
from fdiff.models.layers.embeddings import GaussianFourierProjection, TimestepEmbedding, sinusoidal
from fdiff.models.layers.linear import Conv, Embed, Linear
from fdiff.models.layers.norm import LayerNorm
from fdiff.models.layers.parameter import parameter
from fdiff.models.layers.transformer_2d import DUAL_TEXT_TOKENS

Added = Mapping[str, jax.Array]
ClassType = Annotated[str, OneOf(("timestep", "identity", "projection", "simple_projection"))]
AdditionType = Annotated[str, OneOf(("text", "text_time", "text_image", "image", "image_hint"))]
ContextType = Annotated[str, OneOf(("text_proj", "text_image_proj", "image_proj"))]


class TextTimeEmbedding(nn.Module):
    """Tokens to one vector by attention: (b, n, c) -> (b, features) (DeepFloyd IF)."""

    features: int
    num_heads: int = 64

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        tokens = LayerNorm(name="norm1")(tokens)
        tokens = AttentionPooling(self.num_heads, name="pool")(tokens)
        return LayerNorm(name="norm2")(Linear(self.features, name="proj")(tokens))


class AttentionPooling(nn.Module):
    """What the mean token sees: (b, n, c) -> (b, c)."""

    num_heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        position = parameter(self, "positional_embedding", nn.initializers.normal(width**-0.5), (1, width))
        mean = x.mean(1, keepdims=True) + position.astype(x.dtype)
        x = jnp.concatenate([mean, x], axis=1)
        q = split_heads(Linear(width, name="q_proj")(mean), self.num_heads)
        k = split_heads(Linear(width, name="k_proj")(x), self.num_heads)
        v = split_heads(Linear(width, name="v_proj")(x), self.num_heads)
        return attention(q, k, v).reshape(x.shape[0], width)


class TextImageTimeEmbedding(nn.Module):
    """A text's and an image's vector to one: (b, c), (b, d) -> (b, features) (Kandinsky 2.1)."""

    features: int

    @nn.compact
    def __call__(self, text: jax.Array, image: jax.Array) -> jax.Array:
        text = LayerNorm(name="text_norm")(Linear(self.features, name="text_proj")(text))
        return Linear(self.features, name="image_proj")(image) + text


class ImageTimeEmbedding(nn.Module):
    """An image's vector to another: (b, d) -> (b, features) (Kandinsky 2.2)."""

    features: int

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        return LayerNorm(name="image_norm")(Linear(self.features, name="image_proj")(image))


class ImageHintTimeEmbedding(nn.Module):
    """The same, and a picture to what is appended to the latents: (b, h, w, 3) -> (b, h / 8, w / 8, 4)."""

    features: int

    @nn.compact
    def __call__(self, image: jax.Array, hint: jax.Array) -> tuple[jax.Array, jax.Array]:
        image = LayerNorm(name="image_norm")(Linear(self.features, name="image_proj")(image))
        for i, channels in enumerate((16, 16, 32, 32, 96, 96, 256, 4)):
            stride = 2 if i in (2, 4, 6) else 1
            hint = Conv(channels, stride=stride, name=f"input_hint_block.{2 * i}")(hint)
            hint = hint if i == 7 else nn.silu(hint)
        return image, hint


class TextImageProjection(nn.Module):
    """Tokens and an image's vector to tokens: (b, n, c), (b, d) -> (b, 10 + n, features) (Kandinsky 2.1)."""

    features: int
    num_image_tokens: int = 10

    @nn.compact
    def __call__(self, text: jax.Array, image: jax.Array) -> jax.Array:
        image = Linear(self.num_image_tokens * self.features, name="image_embeds")(image)
        image = image.reshape(-1, self.num_image_tokens, self.features)
        return jnp.concatenate([image, Linear(self.features, name="text_proj")(text)], axis=1)


class ImageProjection(nn.Module):
    """An image's vector to tokens: (b, d) -> (b, n, features) (Kandinsky 2.2 with 32, IP-Adapter with 4)."""

    features: int
    num_image_tokens: int = 32

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        image = Linear(self.num_image_tokens * self.features, name="image_embeds")(image)
        return LayerNorm(name="norm")(image.reshape(-1, self.num_image_tokens, self.features))


def embed(
    model: nn.Module,
    t: jax.Array,
    context: jax.Array | None,
    class_labels: jax.Array | None,
    timestep_cond: jax.Array | None,
    added: Added,
) -> tuple[jax.Array, jax.Array | None]:
    """The vectors (b, d) that residual blocks see, and a picture that belongs to the sample (or None)."""
    features = time_features(model)
    project = time_projection(model, features)
    time_embedding = TimestepEmbedding(
        features,
        model.act_fn,
        post_act_fn=model.timestep_post_act,
        cond_proj_dim=model.time_cond_proj_dim,
        name="time_embedding",
    )
    temb = time_embedding(project(t), timestep_cond)
    labels = embed_class(model, project, class_labels, features)
    if labels is not None and model.class_embeddings_concat:
        temb = jnp.concatenate([temb, labels.astype(temb.dtype)], axis=-1)
    elif labels is not None:
        temb += labels
    more, hint = embed_addition(model, context, added, features)
    if more is not None:
        temb += more
    if model.time_embedding_act_fn is not None:
        temb = activation(model.time_embedding_act_fn)(temb)
    return temb, hint


def time_features(model: nn.Module) -> int:
    """The length of the time embedding."""
    times = {"positional": 4, "fourier": 2}
    return model.time_embedding_dim or times[model.time_embedding_type] * model.block_out_channels[0]


def time_projection(model: nn.Module, features: int) -> Any:
    """The function from times (b,) to their features."""
    if model.time_embedding_type == "fourier":
        return GaussianFourierProjection(
            features // 2, log=False, flip_sin_to_cos=model.flip_sin_to_cos, name="time_proj"
        )
    return sinusoid(model, model.block_out_channels[0])


def sinusoid(model: nn.Module, features: int) -> Any:
    """`sinusoidal` with the options of the model."""
    return functools.partial(
        sinusoidal,
        features=features,
        flip_sin_to_cos=model.flip_sin_to_cos,
        freq_shift=model.freq_shift,
    )


def embed_class(model: nn.Module, project: Any, labels: jax.Array | None, features: int) -> jax.Array | None:
    """The vectors of class labels, as class_embed_type says."""
    kind = model.class_embed_type
    if (kind is None and model.num_class_embeds is None) != (labels is None):
        verb = "takes no" if labels is not None else "needs"
        raise ValueError(f"This {type(model).__name__} {verb} class_labels; see class_embed_type and num_class_embeds.")
    if labels is None:
        return None
    if kind is None:
        return Embed(model.num_class_embeds, features, name="class_embedding")(labels)
    if kind == "timestep":
        return TimestepEmbedding(features, model.act_fn, name="class_embedding")(project(labels))
    if kind == "identity":
        return labels
    if kind == "projection":
        return TimestepEmbedding(features, name="class_embedding")(labels)
    return Linear(features, name="class_embedding")(labels)


def embed_addition(
    model: nn.Module, context: jax.Array | None, added: Added, features: int
) -> tuple[jax.Array | None, jax.Array | None]:
    """The vectors that addition_embed_type asks for, and the picture of "image_hint"."""
    kind, name = model.addition_embed_type, "add_embedding"
    option = f"addition_embed_type {show(kind)}"
    if kind is None:
        return None, None
    if kind == "text":
        tokens = needed(context, "encoder_hidden_states", option)
        return TextTimeEmbedding(features, model.addition_embed_type_num_heads, name=name)(tokens), None
    if kind == "text_time":
        text, times = given(added, "text_embeds", option), given(added, "time_ids", option)
        times = sinusoid(model, model.addition_time_embed_dim)(times.reshape(-1))
        both = jnp.concatenate([text, times.reshape(text.shape[0], -1)], axis=-1)
        return TimestepEmbedding(features, name=name)(both), None
    image = given(added, "image_embeds", option)
    if kind == "text_image":
        text = given(added, "text_embeds", option)
        return TextImageTimeEmbedding(features, name=name)(text, image), None
    if kind == "image":
        return ImageTimeEmbedding(features, name=name)(image), None
    return ImageHintTimeEmbedding(features, name=name)(image, given(added, "hint", option))


def project_context(model: nn.Module, context: jax.Array | None, added: Added) -> jax.Array | None:
    """The tokens that attention layers see, as encoder_hid_dim_type says."""
    kind = model.encoder_hid_dim_type or ("text_proj" if model.encoder_hid_dim is not None else None)
    if kind is None:
        return context
    features, name = model.cross_attention_dim, "encoder_hid_proj"
    option = f"encoder_hid_dim_type {show(kind)}"
    if kind == "text_proj":
        return Linear(features, name=name)(needed(context, "encoder_hidden_states", option))
    if kind == "text_image_proj":
        tokens = needed(context, "encoder_hidden_states", option)
        return TextImageProjection(features, name=name)(tokens, given(added, "image_embeds", option))
    return ImageProjection(features, name=name)(given(added, "image_embeds", option))


def given(added: Added, key: str, option: str) -> jax.Array:
    """One of added_cond_kwargs; ValueError if it is missing."""
    return needed(added.get(key), f"added_cond_kwargs[{key!r}]", option)


def needed(value: jax.Array | None, name: str, option: str) -> jax.Array:
    """The value; ValueError if there is none."""
    if value is None:
        raise ValueError(f"{option} needs {name}; give it.")
    return value


def example_conditions(model: nn.Module) -> tuple[Any, ...]:
    """The smallest legal sample, time, tokens, class labels and added_cond_kwargs of a model."""
    size, features = 2 ** len(model.block_out_channels), time_features(model)
    width, added = model.cross_attention_dim, {}
    if isinstance(width, tuple):
        width = width[0] if len(set(width)) == 1 else 0
    inner, image = width, model.encoder_hid_dim
    if model.encoder_hid_dim_type != "image_proj":
        width = model.encoder_hid_dim or width
    if model.encoder_hid_dim_type == "text_image_proj":
        image = inner
    if model.addition_embed_type == "text_time":
        times = model.addition_time_embed_dim
        added["text_embeds"] = zeros(1, model.projection_class_embeddings_input_dim - times)
        added["time_ids"] = zeros(1, 1)
    elif model.addition_embed_type == "text_image":
        added["text_embeds"], image = zeros(1, inner), inner
    elif model.addition_embed_type == "image_hint":
        added["hint"] = zeros(1, 8 * size, 8 * size, 3)
    if image is not None:
        added["image_embeds"] = zeros(1, image)
    labels = {
        "timestep": zeros(1),
        "identity": zeros(1, features),
        "projection": zeros(1, model.projection_class_embeddings_input_dim or 1),
        "simple_projection": zeros(1, model.projection_class_embeddings_input_dim or 1),
        None: None if model.num_class_embeds is None else np.zeros(1, np.int32),
    }
    channels = model.in_channels - (4 if model.addition_embed_type == "image_hint" else 0)
    tokens = zeros(1, DUAL_TEXT_TOKENS + 1 if model.dual_cross_attention else 1, width) if width else None
    sample, time = zeros(1, size, size, channels), np.ones(1, np.int32)
    return sample, time, tokens, labels.get(model.class_embed_type), added


def zeros(*shape: int) -> np.ndarray:
    """An example input, which takes no memory."""
    return np.broadcast_to(np.float32(0), shape)
