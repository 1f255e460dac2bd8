"""CLIP's text towers (Radford et al. 2021): token ids to what a diffusion model is conditioned on."""

from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Activation, Count, Epsilon, Index, Layers
from fdiff.models.layers.checks import check_tower
from fdiff.models.layers.clip import CLIPEncoder
from fdiff.models.layers.linear import Embed, Linear
from fdiff.models.layers.norm import LayerNorm
from fdiff.models.model import Model


class CLIPTextOutput(NamedTuple):
    """What a text tower computes from ids (b, n)."""

    last_hidden_state: jax.Array  # (b, n, hidden_size), behind the final layer norm
    pooler_output: jax.Array  # (b, hidden_size), the last hidden state of the end-of-text token
    hidden_states: tuple[jax.Array, ...]  # the embeddings and what each layer adds up to, never normalized


class CLIPTextProjection(NamedTuple):
    """The same, where the tower has a projection."""

    text_embeds: jax.Array  # (b, projection_dim), the projected pooler_output
    last_hidden_state: jax.Array
    pooler_output: jax.Array
    hidden_states: tuple[jax.Array, ...]


class CLIPTextModel(Model):
    """The text encoder of Stable Diffusion 1.x and 2.x, and the first one of SDXL.

        output = model.apply({"params": params}, input_ids)

    input_ids (b, n) -> CLIPTextOutput. SD 1.x and 2.x read last_hidden_state, SDXL hidden_states[-2].
    A token looks at those before it and, where attention_mask (b, n) is given, only at those that are not 0.
    clip_skip leaves out so many of the last layers before the final layer norm; the pooler_output keeps them.
    ValueError for more ids than max_position_embeddings.
    """

    weights_name: ClassVar[str] = "model"
    model_type: ClassVar[str | None] = "clip_text_model"

    vocab_size: Count = 49408
    hidden_size: Count = 512
    intermediate_size: Count = 2048
    num_hidden_layers: Layers = 12
    num_attention_heads: Count = 8
    max_position_embeddings: Count = 77
    hidden_act: Activation = "quick_gelu"
    layer_norm_eps: Epsilon = 1e-5
    eos_token_id: Index = 49407

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        check_tower(self)

    def example_inputs(self) -> tuple[Any, ...]:
        """One token."""
        return (np.zeros((1, 1), np.int32),)

    @nn.compact
    def __call__(
        self, input_ids: jax.Array, attention_mask: jax.Array | None = None, clip_skip: int = 0
    ) -> CLIPTextOutput:
        return _text_tower(self, input_ids, attention_mask, clip_skip)


class CLIPTextModelWithProjection(Model):
    """CLIPTextModel with a linear map of the pooled output: the second text encoder of SDXL, both of SD3."""

    weights_name: ClassVar[str] = "model"
    model_type: ClassVar[str | None] = "clip_text_model"

    vocab_size: Count = 49408
    hidden_size: Count = 512
    intermediate_size: Count = 2048
    projection_dim: Count = 512
    num_hidden_layers: Layers = 12
    num_attention_heads: Count = 8
    max_position_embeddings: Count = 77
    hidden_act: Activation = "quick_gelu"
    layer_norm_eps: Epsilon = 1e-5
    eos_token_id: Index = 49407

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        check_tower(self)

    def example_inputs(self) -> tuple[Any, ...]:
        """One token."""
        return (np.zeros((1, 1), np.int32),)

    @nn.compact
    def __call__(
        self, input_ids: jax.Array, attention_mask: jax.Array | None = None, clip_skip: int = 0
    ) -> CLIPTextProjection:
        output = _text_tower(self, input_ids, attention_mask, clip_skip)
        projection = Linear(self.projection_dim, use_bias=False, name="text_projection")
        return CLIPTextProjection(projection(output.pooler_output), *output)


def _text_tower(
    model: CLIPTextModel | CLIPTextModelWithProjection,
    ids: jax.Array,
    attention_mask: jax.Array | None,
    clip_skip: int,
) -> CLIPTextOutput:
    """What both classes compute. The submodules made here belong to the module whose __call__ runs."""
    length = ids.shape[1]
    if length > model.max_position_embeddings:
        raise ValueError(
            f"{length} tokens are too many for a text encoder of {model.max_position_embeddings}; "
            "cut the prompt or encode it in chunks."
        )
    if not 0 <= clip_skip < model.num_hidden_layers:
        raise ValueError(f"clip_skip {clip_skip} must be between 0 and {model.num_hidden_layers - 1}.")

    tokens = Embed(model.vocab_size, model.hidden_size, name="text_model.embeddings.token_embedding")
    places = Embed(model.max_position_embeddings, model.hidden_size, name="text_model.embeddings.position_embedding")
    mask = jnp.tri(length, dtype=bool)[None, None]
    if attention_mask is not None:
        mask = mask & (attention_mask != 0)[:, None, None, :]
    states = CLIPEncoder(
        model.num_hidden_layers,
        model.num_attention_heads,
        model.intermediate_size,
        model.hidden_act,
        model.layer_norm_eps,
        name="text_model.encoder",
    )(tokens(ids) + places(jnp.arange(length)), mask)

    norm = LayerNorm(model.layer_norm_eps, name="text_model.final_layer_norm")
    last = norm(states[-1])
    # Configs from before transformers 4.31 say 2 and mean the largest id, which <|endoftext|> was.
    ends = ids if model.eos_token_id == 2 else ids == model.eos_token_id
    pooled = jnp.take_along_axis(last, ends.argmax(-1)[:, None, None], axis=1)[:, 0]
    return CLIPTextOutput(norm(states[-1 - clip_skip]) if clip_skip else last, pooled, states)
