"""ClapTextModelWithProjection: RoBERTa, which reads text for AudioLDM as CLAP was trained to hear it."""

import os
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.messages import show
from fdiff.models.fields import Activation, Count, Epsilon, Index, Layers
from fdiff.models.layers.activations import activation
from fdiff.models.layers.attention import attention, merge_heads, split_heads
from fdiff.models.layers.checks import check_tower, require
from fdiff.models.layers.linear import Embed, Linear
from fdiff.models.layers.norm import LayerNorm
from fdiff.models.model import CONFIG, Model


class ClapTextOutput(NamedTuple):
    """What CLAP makes of a text: (b, projection_dim), and what leaves the last layer, (b, n, hidden_size)."""

    text_embeds: jax.Array
    last_hidden_state: jax.Array


class ClapTextModelWithProjection(Model):
    """CLAP's text tower (Wu et al. 2023, Liu et al. 2019): ids (b, n) -> ClapTextOutput.

    Where attention_mask (b, n) is given, tokens look only at those that are not 0.
    """

    weights_name: ClassVar[str] = "model"
    model_type: ClassVar[str | None] = "clap_text_model"

    vocab_size: Count = 50265
    hidden_size: Count = 768
    num_hidden_layers: Layers = 12
    num_attention_heads: Count = 12
    intermediate_size: Count = 3072
    hidden_act: Activation = "gelu"
    max_position_embeddings: Count = 514
    type_vocab_size: Count = 1
    layer_norm_eps: Epsilon = 1e-12
    projection_dim: Count = 512
    projection_hidden_act: Activation = "relu"
    pad_token_id: Index = 1

    @nn.compact
    def __call__(self, input_ids: jax.Array, attention_mask: jax.Array | None = None) -> ClapTextOutput:
        self.check_options()
        length, most = input_ids.shape[1], self.max_position_embeddings - self.pad_token_id - 1
        if length > most:
            raise ValueError(f"The text has {length} tokens, and {type(self).__name__} reads at most {most}.")
        place, width = "text_model.embeddings", self.hidden_size
        seen = (input_ids != self.pad_token_id).astype(jnp.int32)
        positions = jnp.cumsum(seen, axis=1) * seen + self.pad_token_id
        x = Embed(self.vocab_size, width, name=f"{place}.word_embeddings")(input_ids)
        x += Embed(self.type_vocab_size, width, name=f"{place}.token_type_embeddings")(jnp.zeros_like(input_ids))
        x += Embed(self.max_position_embeddings, width, name=f"{place}.position_embeddings")(positions)
        x = self.norm(f"{place}.LayerNorm", x)
        mask = None if attention_mask is None else (attention_mask != 0)[:, None, None]
        for i in range(self.num_hidden_layers):
            x = self.layer(f"text_model.encoder.layer.{i}", x, mask)
        pooled = jnp.tanh(Linear(width, name="text_model.pooler.dense")(x[:, 0]))
        y = Linear(self.projection_dim, name="text_projection.linear1")(pooled)
        y = Linear(self.projection_dim, name="text_projection.linear2")(activation(self.projection_hidden_act)(y))
        return ClapTextOutput(y, x)

    def layer(self, name: str, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Self-attention and a feed-forward network, each added to its input and normalized then: (b, n, c)."""
        q, k, v = (
            split_heads(Linear(self.hidden_size, name=f"{name}.attention.self.{part}")(x), self.num_attention_heads)
            for part in ("query", "key", "value")
        )
        y = Linear(self.hidden_size, name=f"{name}.attention.output.dense")(merge_heads(attention(q, k, v, mask)))
        x = self.norm(f"{name}.attention.output.LayerNorm", x + y)
        y = activation(self.hidden_act)(Linear(self.intermediate_size, name=f"{name}.intermediate.dense")(x))
        return self.norm(f"{name}.output.LayerNorm", x + Linear(self.hidden_size, name=f"{name}.output.dense")(y))

    def norm(self, name: str, x: jax.Array) -> jax.Array:
        """Normalize the last axis."""
        return LayerNorm(self.layer_norm_eps, name=name)(x)

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        check_tower(self)
        last = self.pad_token_id + 1
        require(self.max_position_embeddings > last, f"max_position_embeddings must exceed pad_token_id, {last - 1}.")
        require(self.vocab_size > self.pad_token_id, f"vocab_size must exceed pad_token_id, {self.pad_token_id}.")

    def example_inputs(self) -> tuple[Any, ...]:
        """One token."""
        return (np.zeros((1, 1), np.int32),)


class ClapModel(ClapTextModelWithProjection):
    """CLAP, of which the part that reads is kept; what its files hold of the part that hears is passed over.

    Its config.json has the fields under "text_config".
    """

    model_type: ClassVar[str | None] = "clap"

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, file: str | os.PathLike[str] = CONFIG) -> Self:
        """As every model's, from "text_config"; projection_dim is beside it."""
        text = config.get("text_config", config)
        if not isinstance(text, Mapping):
            raise ValueError(f"{file}: text_config is {show(text)}; it must be an object.")
        beside = {key: config[key] for key in ("projection_dim",) if key in config}
        return super().from_config({**text, **beside}, file=file)

    def config(self) -> dict[str, Any]:
        """The config.json of this module, whole: what `from_config` reads."""
        whole = super().config()
        top = {key: whole.pop(key) for key in ("architectures", "model_type")}
        beside = {"projection_dim": self.projection_dim}
        return {**top, **beside, "text_config": {**whole, "model_type": ClapTextModelWithProjection.model_type}}
