"""The safety checker of Stable Diffusion 1.x, which a pipeline runs only where it is asked to."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from fdiff.models.clip_vision import CLIPVisionModel
from fdiff.models.fields import Count
from fdiff.models.layers.linear import Linear
from fdiff.models.layers.parameter import parameter
from fdiff.models.model import Model


class StableDiffusionSafetyChecker(Model):
    """Whether CLIP sees a forbidden concept: pictures (b, h, w, 3), prepared for CLIP, -> booleans (b,).

    A picture is unsafe where its cosine with one of the concepts exceeds that concept's threshold, which is
    0.01 lower for a picture that comes near one of the special_care concepts. Scores count in thousandths.
    """

    weights_name: ClassVar[str] = "model"
    model_type: ClassVar[str | None] = "clip"
    library: ClassVar[str] = "stable_diffusion"  # the module of diffusers that has it

    projection_dim: Count = 512
    vision_config: FrozenDict[str, Any] = FrozenDict()

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, file: str | os.PathLike[str] = "config.json") -> Self:
        """As Model.from_config; of the vision tower's own config only its fields are kept."""
        # Old configs say twice what the tower is like; vision_config_dict wins.
        towers = [config.get(key) or {} for key in ("vision_config", "vision_config_dict")]
        kept: Any = next((tower for tower in towers if not isinstance(tower, Mapping)), None)
        if kept is None:
            fields = {field.name for field in dataclasses.fields(CLIPVisionModel)} - {"parent", "name"}
            kept = FrozenDict({key: value for tower in towers for key, value in tower.items() if key in fields})
        return super().from_config({**config, "vision_config": kept}, file=file)

    def check_options(self) -> None:
        """Refuse options of the tower."""
        try:
            CLIPVisionModel(**self.vision_config, parent=None).check_options()
        except ValueError as error:
            raise ValueError(f"vision_config: {error}") from error

    def example_inputs(self) -> tuple[Any, ...]:
        """One picture."""
        return CLIPVisionModel(**self.vision_config, parent=None).example_inputs()

    @nn.compact
    def __call__(self, pixel_values: jax.Array) -> jax.Array:
        tower = CLIPVisionModel(**self.vision_config, name="vision_model")
        pooled = tower(pixel_values).pooler_output
        embeds = Linear(self.projection_dim, use_bias=False, name="visual_projection")(pooled)

        ones = nn.initializers.ones
        special = parameter(self, "special_care_embeds", ones, (3, self.projection_dim))
        special_thresholds = parameter(self, "special_care_embeds_weights", ones, (3,))
        concepts = parameter(self, "concept_embeds", ones, (17, self.projection_dim))
        thresholds = parameter(self, "concept_embeds_weights", ones, (17,))

        care = _rounded(_cosines(embeds, special) - special_thresholds) > 0
        lowered = jnp.where(care.any(-1, keepdims=True), 0.01, 0.0)
        return (_rounded(_cosines(embeds, concepts) - thresholds + lowered) > 0).any(-1)


def _cosines(x: jax.Array, y: jax.Array) -> jax.Array:
    """Cosine of every row of x (b, d) with every row of y (n, d): (b, n), float32."""
    x, y = (
        rows / jnp.maximum(jnp.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
        for rows in (x.astype(jnp.float32), y.astype(jnp.float32))
    )
    return x @ y.T


def _rounded(scores: jax.Array) -> jax.Array:
    return jnp.round(scores, 3)
