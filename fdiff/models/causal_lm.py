"""Language models that read a text for a diffusion model: Qwen3 and Gemma 2."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fdiff.messages import show
from fdiff.models.fields import Activation, Count, Epsilon, Factor, Index, Layers, Theta, checked
from fdiff.models.layers.checks import require
from fdiff.models.layers.decoder import DecoderLayer
from fdiff.models.layers.linear import Embed
from fdiff.models.layers.norm import RMSNorm
from fdiff.models.layers.repeated import at, repeated
from fdiff.models.layers.rotary import rotary_angles
from fdiff.models.model import Model

MASKS = ("full_attention", "sliding_attention")  # the kinds of layers
States = tuple[jax.Array, list[jax.Array]]  # what a layer is given, and those of the states before it that are wanted


class CausalLM(Model):
    """What such models share: their options, and what they compute, up to the layer that chooses words.

    input_ids (b, n) -> a tuple of hidden states (b, n, hidden_size), those of `hidden_layers`: 0 are the embeddings, i
    is what leaves layer i, and the last, -1, is normalized, as transformers counts them. A token looks at those before
    it and, where attention_mask (b, n) is given, only at those that are not 0. Layers above all asked for are not run.
    position_ids (b, n) say where each token is, if not at 0, 1, 2 and so on; without norm_last, the last of the states
    is as it leaves its layer. Models that see are shown pictures, (b, h, w, c) each.
    """

    weights_name: ClassVar[str] = "model"
    prefix: ClassVar[str] = ""  # of the names of all parameters
    qk_norm: ClassVar[bool] = False
    qkv_bias: ClassVar[bool] = False  # whatever attention_bias says
    rope_types: ClassVar[tuple[str, ...]] = ("default",)
    sandwich: ClassVar[bool] = False
    norm_offset: ClassVar[float] = 0.0

    vocab_size: Count = 32000
    hidden_size: Count = 4096
    intermediate_size: Count = 11008
    num_hidden_layers: Layers = 32
    num_attention_heads: Count = 32
    num_key_value_heads: Count = 32
    head_dim: Count = 128
    hidden_act: Activation = "silu"
    rms_norm_eps: Epsilon = 1e-6
    rope_theta: Theta = 10000.0
    rope_scaling: Mapping[str, Any] | None = None
    rope_parameters: Mapping[str, Any] | None = None  # where transformers 5 writes the two
    attention_bias: bool = False
    sliding_window: Count | None = 4096
    layer_types: tuple[str, ...] | None = None
    tie_word_embeddings: bool = False

    def check_options(self) -> None:
        """Refuse options that do not fit together."""
        heads, shared = self.num_attention_heads, self.num_key_value_heads
        require(heads % shared == 0, f"num_key_value_heads {shared} must divide num_attention_heads {heads}.")
        require(self.head_dim % 2 == 0, f"head_dim {self.head_dim} must be even, since halves are turned.")
        self.kinds()
        self.theta()

    @nn.compact
    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array | None = None,
        hidden_layers: tuple[int, ...] = (-1,),
        position_ids: jax.Array | None = None,
        norm_last: bool = True,
        shown: Sequence[jax.Array] = (),
    ) -> tuple[jax.Array, ...]:
        count = self.num_hidden_layers
        wrong = [layer for layer in hidden_layers if not -count - 1 <= layer <= count]
        if wrong:
            raise ValueError(f"hidden_layers {wrong[0]} is not there; choose from 0 to {count}, or {-count - 1} to -1.")
        wanted = [layer % (count + 1) for layer in hidden_layers]
        masks = self.masks(input_ids.shape[1], attention_mask)
        angles = self.angles(jnp.arange(input_ids.shape[1]) if position_ids is None else position_ids)
        x = Embed(self.vocab_size, self.hidden_size, name=f"{self.prefix}embed_tokens")(input_ids)
        x = self.sighted(x * jnp.asarray(self.embedding_scale(), x.dtype), input_ids, shown)
        kinds = self.kinds()

        def step(layer: Any, both: States, i: Any) -> States:
            if isinstance(i, int):
                x = layer(both[0], angles, masks[kinds[i]])
                return x, [x if number == i + 1 else one for number, one in zip(wanted, both[1], strict=True)]
            number = jnp.array([MASKS.index(kind) for kind in kinds])[i]
            mask = masks[kinds[0]] if len(set(kinds)) == 1 else at([masks[kind] for kind in MASKS], number)
            x = layer(both[0], angles, mask)
            return x, [jnp.where(number == i + 1, x, one) for number, one in zip(wanted, both[1], strict=True)]

        most = count if self.is_initializing() else max(wanted)
        x, states = repeated(self, most, self.layer, step, (x, [x] * len(wanted)))
        if most == count and (norm_last or self.is_initializing()):
            last = RMSNorm(self.rms_norm_eps, offset=self.norm_offset, name=f"{self.prefix}norm")(x)
            states = [last if number == count else one for number, one in zip(wanted, states, strict=True)]
        return tuple(states)

    def sighted(self, x: jax.Array, input_ids: jax.Array, shown: Sequence[jax.Array]) -> jax.Array:
        """Embeddings x (b, n, c), with what is seen in their place where tokens stand for it."""
        if shown:
            raise ValueError(f"this {type(self).__name__} sees no pictures.")
        return x

    def layer(self, i: int) -> DecoderLayer:
        """One of the layers."""
        return DecoderLayer(
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
            self.intermediate_size,
            self.activation(),
            self.rms_norm_eps,
            qkv_bias=self.qkv_bias or self.attention_bias,
            out_bias=self.attention_bias,
            qk_norm=self.qk_norm,
            sandwich=self.sandwich,
            norm_offset=self.norm_offset,
            scale=self.score_scale(),
            soft_cap=self.soft_cap(),
            name=f"{self.prefix}layers.{i}",
        )

    def masks(self, length: int, attention_mask: jax.Array | None) -> dict[str, jax.Array]:
        """Where tokens may look, (1 or b, 1, n, n), for each kind of layer."""
        distance = jnp.arange(length)[:, None] - jnp.arange(length)
        near = distance < (length if self.sliding_window is None else self.sliding_window)
        masks = {"full_attention": distance >= 0, "sliding_attention": (distance >= 0) & near}
        seen = True if attention_mask is None else (attention_mask != 0)[:, None, None]
        return {kind: mask[None, None] & seen for kind, mask in masks.items()}

    def kinds(self) -> tuple[str, ...]:
        """The kind of each layer."""
        kinds = self.layer_types or self.default_kinds()
        unknown = sorted(set(kinds) - {"full_attention", "sliding_attention"})
        if unknown or len(kinds) != self.num_hidden_layers:
            wanted = f"{self.num_hidden_layers} times full_attention or sliding_attention"
            raise ValueError(f"layer_types must be {wanted}, not {show(kinds)}.")
        return kinds

    def default_kinds(self) -> tuple[str, ...]:
        """The kinds of layers where the config does not say them."""
        return ("full_attention",) * self.num_hidden_layers

    def angles(self, positions: jax.Array) -> jax.Array:
        """By what queries and keys are turned at positions (..., n): (..., n, head_dim / 2)."""
        return rotary_angles(positions, self.head_dim, self.theta())

    def theta(self) -> float:
        """The base of the rotary embeddings' frequencies."""
        options = self.rope_parameters or self.rope_scaling or {}
        kind = options.get("rope_type", options.get("type", "default"))
        if kind not in self.rope_types:
            raise ValueError(f"rope_type {show(kind)} is unknown to {type(self).__name__}; only default is.")
        theta = options.get("rope_theta", self.rope_theta)
        return float(checked(type(self).__name__, "rope_theta", Theta, theta))

    def embedding_scale(self) -> float:
        """By what the embeddings are multiplied."""
        return 1.0

    def score_scale(self) -> float | None:
        """By what the scores of the attention are multiplied; None: 1 / sqrt(head_dim)."""
        return None

    def soft_cap(self) -> float | None:
        """The bound of those scores; None: there is none."""
        return None

    def activation(self) -> str:
        """The activation of the feed-forward networks."""
        return self.hidden_act

    def example_inputs(self) -> tuple[Any, ...]:
        """One token."""
        return (np.zeros((1, 1), np.int32),)


class Qwen3ForCausalLM(CausalLM):
    """Qwen3 (Yang et al. 2025): the text encoder of Z-Image and of FLUX.2 klein."""

    model_type: ClassVar[str | None] = "qwen3"
    prefix: ClassVar[str] = "model."
    qk_norm: ClassVar[bool] = True

    vocab_size: Count = 151936
    intermediate_size: Count = 22016
    use_sliding_window: bool = False
    max_window_layers: Index = 28

    def default_kinds(self) -> tuple[str, ...]:
        """Windows above max_window_layers, where they are used at all."""
        slides = [self.use_sliding_window and i >= self.max_window_layers for i in range(self.num_hidden_layers)]
        return tuple("sliding_attention" if slide else "full_attention" for slide in slides)


class Qwen3Model(Qwen3ForCausalLM):
    """Qwen3 as indices name it where its last layer is left out, which nobody here needs: as ACE-Step 1.5's does."""


class Gemma2Model(CausalLM):
    """Gemma 2 (Gemma Team 2024): the text encoder of Lumina 2 and Sana."""

    model_type: ClassVar[str | None] = "gemma2"
    sandwich: ClassVar[bool] = True
    norm_offset: ClassVar[float] = 1.0

    vocab_size: Count = 256000
    hidden_size: Count = 2304
    intermediate_size: Count = 9216
    num_hidden_layers: Layers = 26
    num_attention_heads: Count = 8
    num_key_value_heads: Count = 4
    head_dim: Count = 256
    hidden_activation: Activation = "gelu_pytorch_tanh"
    query_pre_attn_scalar: Count = 256
    attn_logit_softcapping: Factor | None = 50.0
    tie_word_embeddings: bool = True

    def default_kinds(self) -> tuple[str, ...]:
        """Windows in every other layer, beginning with the first."""
        return tuple(("sliding_attention", "full_attention")[i % 2] for i in range(self.num_hidden_layers))

    def embedding_scale(self) -> float:
        """sqrt(hidden_size)."""
        return float(self.hidden_size**0.5)

    def score_scale(self) -> float:
        """1 / sqrt(query_pre_attn_scalar)."""
        return float(self.query_pre_attn_scalar**-0.5)

    def soft_cap(self) -> float | None:
        """attn_logit_softcapping."""
        return self.attn_logit_softcapping

    def activation(self) -> str:
        """hidden_activation, which the config has beside hidden_act."""
        return self.hidden_activation
