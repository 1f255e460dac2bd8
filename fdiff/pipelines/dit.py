"""Pictures of a class, drawn in the latent space of an autoencoder by a transformer or a U-Net."""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from fdiff import guidance
from fdiff.models import AutoencoderKL, VQModel
from fdiff.pipelines import latent, latent_diffusion
from fdiff.pipelines.checks import asks_guidance
from fdiff.pipelines.class_conditional import ClassConditional, labelled, number_of
from fdiff.pipelines.denoise import Network
from fdiff.pipelines.draws import Seed
from fdiff.pipelines.latent import Begun
from fdiff.pipelines.pipeline import DiffusionPipeline, Params, tree_of
from fdiff.pipelines.plans import planned
from fdiff.pipelines.task import Key, Task, option
from fdiff.pipelines.unconditional import PictureNetwork
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler


@dataclasses.dataclass(frozen=True)
class LatentClassConditional(ClassConditional):
    """Pictures of classes, by way of latents."""

    _: KW_ONLY
    guidance_scale: float = option(4.0, "how closely to keep to the class; at most 1 is none, and costs half")
    num_inference_steps: int = option(50, "network calls", flag="steps")
    output_type: str = option(
        "pil", "pil; np, (b, h, w, c) in [0, 1]; array, in [-1, 1]; or latent, undecoded", flag=None
    )


def from_nothing(
    transformer: PictureNetwork, plan: Plan, key: Key, torch_seed: Seed, batch_size: int
) -> Begun:
    """Stage: begin with noise alone, in the shape of the latents that the network was trained on."""
    return latent_diffusion.from_nothing(transformer, plan, key, torch_seed, batch_size)


def guided_to_class(
    transformer: PictureNetwork, params: Params, class_labels: jax.Array, guidance_scale: Any
) -> Network:
    """Stage: the network, guided from no class, its last one, to each. Raises ValueError for a scale that is none."""
    guides = asks_guidance(guidance_scale, len(class_labels))
    network = Partial(_predicted, Partial(transformer.apply, {"params": tree_of(params, "transformer")}))
    nothing = jnp.full_like(class_labels, (transformer.num_class_embeds or 1) - 1) if guides else None
    return Network(guidance.classifier_free(network, class_labels, nothing, jnp.maximum(guidance_scale, 1)))


def _predicted(network: guidance.Conditional, x: jax.Array, t: jax.Array, class_labels: jax.Array) -> jax.Array:
    """What the network says of x, without the variance that it may predict in further channels."""
    return network(x, t, class_labels)[..., : x.shape[-1]]


drawing = Task(
    LatentClassConditional, (labelled, planned, from_nothing, guided_to_class), latent.pictures,
    "Draw one picture of each class that is asked for.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class DiTPipeline(DiffusionPipeline):
    """Pictures of a class from latents, as facebook/DiT-XL-2-256 draws those of ImageNet (Peebles and Xie 2023).

    The last class of `transformer`, which may be a U-Net too, stands for "no class". `id2label` names the others in
    order, each by one or several names with commas between.
    """

    transformer: PictureNetwork
    vae: AutoencoderKL | VQModel
    scheduler: Scheduler
    id2label: tuple[str, ...] = ()

    autoencoder: ClassVar[str] = "vae"
    decode = latent.decode
    __call__, steps = drawing.methods()

    @property
    def classes(self) -> int:
        """How many classes can be asked for: those that have names, where some have."""
        return len(self.id2label) or (self.transformer.num_class_embeds or 1) - 1

    def class_number(self, label: int | str) -> int:
        """The number of a class given by its number or a name. Raises ValueError where the model has none such."""
        return number_of(label, [[name.strip() for name in each.split(",")] for each in self.id2label], self.classes)
