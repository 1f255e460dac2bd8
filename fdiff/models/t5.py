"""T5's and umT5's encoders (Raffel et al. 2020, Chung et al. 2023), which read text for FLUX.1, SD3, PixArt and Wan."""

import os
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.fields import Count, Epsilon, Layers, OneOf, between
from fdiff.models.layers.activations import FUNCTIONS
from fdiff.models.layers.checks import require
from fdiff.models.layers.linear import Embed
from fdiff.models.layers.norm import RMSNorm
from fdiff.models.layers.repeated import repeated
from fdiff.models.layers.t5 import T5Block
from fdiff.models.model import CONFIG, Model

MASKED = -1e30  # added to the scores of tokens that are not to be seen

FeedForward = Annotated[str, OneOf((*FUNCTIONS, *(f"gated-{name}" for name in FUNCTIONS)))]


class T5Encoder(Model):
    """What both encoders share: their options, and what they compute.

    input_ids (b, n) -> (b, n, d_model), for any n. Where attention_mask (b, n) is given, tokens look only at those that
    are not 0. Sums are float32 whatever the parameters are, since float16 is too narrow for them.
    """

    weights_name: ClassVar[str] = "model"

    vocab_size: Count = 32128
    d_model: Count = 512
    d_kv: Count = 64
    d_ff: Count = 2048
    num_layers: Layers = 6
    num_heads: Count = 8
    relative_attention_num_buckets: Annotated[int, between(4, 2**20)] = 32
    relative_attention_max_distance: Count = 128
    layer_norm_epsilon: Epsilon = 1e-6
    feed_forward_proj: FeedForward = "relu"

    each_has_bias: ClassVar[bool]  # whether each block has a bias for places, or the first one for all

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        near, far = self.relative_attention_num_buckets // 4, self.relative_attention_max_distance
        require(near < far, f"relative_attention_max_distance {far} must exceed {near}, a quarter of the buckets.")

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, file: str | os.PathLike[str] = CONFIG) -> Self:
        """As every model's; is_gated_act and dense_act_fn, where they are, are what feed_forward_proj says in one word.

        So transformers reads them too. It writes all three; some files hold the two alone.
        """
        told = config.get("feed_forward_proj", cls.feed_forward_proj)
        if {"is_gated_act", "dense_act_fn"} & config.keys() and isinstance(told, str):
            gated, _, named = told.rpartition("-")
            is_gated = config.get("is_gated_act", bool(gated))
            act_fn = config.get("dense_act_fn", "gelu_new" if gated and named == "gelu" else named)
            if is_gated and act_fn == "gelu":  # whose one word means the approximation
                raise ValueError(f"{file} sets dense_act_fn to 'gelu' with is_gated_act; set it to 'gelu_new'.")
            config = {**config, "feed_forward_proj": f"gated-{act_fn}" if is_gated else act_fn}
        return super().from_config(config, file=file)

    @nn.compact
    def __call__(self, input_ids: jax.Array, attention_mask: jax.Array | None = None) -> jax.Array:
        gated, _, act_fn = self.feed_forward_proj.rpartition("-")
        if gated and act_fn == "gelu":  # the approximation, whatever the name says
            act_fn = "gelu_new"
        x = Embed(self.vocab_size, self.d_model, name="shared")(input_ids)
        dtype, x = x.dtype, x.astype(jnp.float32)
        mask = jnp.zeros((1, 1, 1, 1))
        if attention_mask is not None:
            mask = jnp.where(attention_mask != 0, 0.0, MASKED)[:, None, None]

        def make(i: int) -> T5Block:
            own = self.each_has_bias or i == 0
            return T5Block(
                self.num_heads,
                self.d_kv,
                self.d_ff,
                bool(gated),
                act_fn,
                self.layer_norm_epsilon,
                self.relative_attention_num_buckets if own else None,
                self.relative_attention_max_distance,
                name=f"encoder.block.{i}",
            )

        def step(block: T5Block, both: tuple[jax.Array, jax.Array], i: Any) -> tuple[jax.Array, jax.Array]:
            x, bias = block(*both)
            return x, both[1] if self.each_has_bias else bias

        x, _ = repeated(self, self.num_layers, make, step, (x, mask))
        return RMSNorm(self.layer_norm_epsilon, name="encoder.final_layer_norm")(x).astype(dtype)

    def example_inputs(self) -> tuple[Any, ...]:
        """One token."""
        return (np.zeros((1, 1), np.int32),)


class T5EncoderModel(T5Encoder):
    """T5's encoder, whose first block has the bias for places: of FLUX.1, SD3, PixArt, CogVideoX, LTX."""

    model_type: ClassVar[str | None] = "t5"
    each_has_bias: ClassVar[bool] = False


class UMT5EncoderModel(T5Encoder):
    """umT5's encoder, each of whose blocks has a bias for places: of Wan."""

    model_type: ClassVar[str | None] = "umt5"
    each_has_bias: ClassVar[bool] = True

    vocab_size: Count = 250112
    num_layers: Layers = 8
    num_heads: Count = 6
    d_ff: Count = 1024
    feed_forward_proj: FeedForward = "gated-gelu"
