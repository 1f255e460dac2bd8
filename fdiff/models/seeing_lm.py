"""The text side of language models that also see, with which pipelines read a text: Mistral 3 and Qwen3-VL."""

import math
import os
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

from fdiff.messages import show
from fdiff.models.causal_lm import CausalLM
from fdiff.models.fields import Count, Epsilon, Factor, Layers, Theta, checked
from fdiff.models.model import CONFIG


class SeeingLM(CausalLM):
    """What they share: the config of the text side lies within that of the whole, and the files hold more than it."""

    prefix: ClassVar[str] = "language_model."

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, file: str | os.PathLike[str] = CONFIG) -> Self:
        """As every model's, of what text_config says."""
        text = config.get("text_config", {})
        return super().from_config({**config, **text} if isinstance(text, Mapping) else config, file=file)

    def config(self) -> dict[str, Any]:
        """The config.json, with the options of the text side in text_config."""
        whole = super().config()
        if self.layer_types is None:  # which transformers would take for none at all
            del whole["layer_types"]
        outside = {name: whole.pop(name) for name in ("architectures", "model_type")}
        return {**outside, "text_config": {**whole, "model_type": self.text_type()}}

    def text_type(self) -> str:
        """transformers' model_type of the text side."""
        raise NotImplementedError


class Qwen3VLModel(SeeingLM):
    """Qwen3-VL (Qwen Team 2025): the text encoder of Krea 2 and FLUX.3.

    Its rotary embeddings have three axes, of time, rows and columns; of a text they are one.
    """

    model_type: ClassVar[str | None] = "qwen3_vl"
    qk_norm: ClassVar[bool] = True

    vocab_size: Count = 151936
    intermediate_size: Count = 22016
    rope_theta: Theta = 5000000.0
    sliding_window: Count | None = None

    def text_type(self) -> str:
        """qwen3_vl_text."""
        return "qwen3_vl_text"


class Qwen3VLForConditionalGeneration(Qwen3VLModel):
    """Qwen3-VL as indices name it where its last layer is there, which nobody here needs: as Qwen-Image-2.1's does."""


class Mistral3Model(SeeingLM):
    """Mistral 3 (Mistral AI 2025): the text encoder of ERNIE-Image and, of 24 billion parameters, of FLUX.2 dev.

    rope_type "yarn" slows the turns of low frequencies, for longer texts than it was first trained on.
    """

    model_type: ClassVar[str | None] = "mistral3"

    vocab_size: Count = 131072
    hidden_size: Count = 5120
    intermediate_size: Count = 32768
    num_hidden_layers: Layers = 40
    num_key_value_heads: Count = 8
    rms_norm_eps: Epsilon = 1e-5
    rope_theta: Theta = 1000000000.0
    sliding_window: Count | None = None

    def text_type(self) -> str:
        """The younger of the two kinds has yarn."""
        return "mistral" if self.yarn() is None else "ministral3"

    def yarn(self) -> Mapping[str, Any] | None:
        """The options of yarn, None without it."""
        options = self.rope_parameters or self.rope_scaling or {}
        return options if options.get("rope_type", options.get("type")) == "yarn" else None

    def theta(self) -> float:
        """As every model's, with yarn too. Raises ValueError for numbers of yarn that are none."""
        yarn = self.yarn()
        if yarn is None:
            return super().theta()
        given = {"factor": Factor, "original_max_position_embeddings": Count}
        for name, kind in {**given, "rope_theta": Theta}.items():
            if name not in yarn and name in given:
                raise ValueError(f"rope_parameters {show(dict(yarn))} lack {name}, which yarn needs.")
            checked(type(self).__name__, name, kind, yarn.get(name, self.rope_theta))
        return float(yarn.get("rope_theta", self.rope_theta))

    def angles(self, positions: jax.Array) -> jax.Array:
        """As every model's, by the frequencies of yarn where it is there.

        Raises ValueError for more tokens than it was first trained on, whose scores have another scale.
        """
        yarn = self.yarn()
        if yarn is None:
            return super().angles(positions)
        most = yarn["original_max_position_embeddings"]
        if positions.shape[-1] > most:
            raise ValueError(f"a text of {positions.shape[-1]} tokens is too long; {most} are the most.")
        frequencies = yarn_frequencies(self.head_dim, self.theta(), yarn)
        return positions.astype(jnp.float32)[..., None] * frequencies.astype(np.float32)

    def score_scale(self) -> float | None:
        """The square of what yarn multiplies queries and keys by, / sqrt(head_dim)."""
        yarn = self.yarn()
        if yarn is None:
            return None
        factor, scales = float(yarn["factor"]), (yarn.get("mscale"), yarn.get("mscale_all_dim"))
        longer = yarn.get("attention_factor")
        if longer is None:
            parts = [1 + 0.1 * (scale or 1.0) * math.log(max(factor, 1.0)) for scale in scales]
            longer = parts[0] / parts[1] if all(scales) else 1 + 0.1 * math.log(max(factor, 1.0))
        return float(longer**2 * self.head_dim**-0.5)


class Mistral3ForConditionalGeneration(Mistral3Model):
    """Mistral 3 as indices name it where its last layer is there, which nobody here needs: as FLUX.2 dev's does."""


def yarn_frequencies(features: int, theta: float, yarn: Mapping[str, Any]) -> np.ndarray:
    """(features / 2,): high frequencies as they are, low ones divided by `factor` (Peng et al. 2023, section 3.2).

    Which is high or low goes by how often it turns in original_max_position_embeddings tokens: above beta_fast, below
    beta_slow, and evenly between.
    """
    own: np.ndarray = theta ** (-np.arange(0, features, 2) / features)
    length = yarn["original_max_position_embeddings"]

    def number(turns: float) -> float:  # of the frequency that turns so often
        return features * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = number(yarn.get("beta_fast") or 32), number(yarn.get("beta_slow") or 1)
    if yarn.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, features - 1)
    share = np.clip((np.arange(features // 2) - low) / (high - low or 1e-3), 0, 1)
    return own * (1 - share) + own / float(yarn["factor"]) * share
