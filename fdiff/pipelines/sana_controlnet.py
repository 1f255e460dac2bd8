"""Sana steered by pictures: edges, depth, poses, as its ControlNets know them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff import guidance
from fdiff.models import AutoencoderDC, SanaControlNetModel, SanaTransformer2DModel
from fdiff.pipelines.binned import OWN, pictured_in_shape
from fdiff.pipelines.denoise import Both, guided
from fdiff.pipelines.flow import Tokens
from fdiff.pipelines.flow_control import Steering, acting, latents_seen, taken_for
from fdiff.pipelines.latent import pictures
from fdiff.pipelines.pipeline import Params
from fdiff.pipelines.plans import planned
from fdiff.pipelines.requests import Pictures, Pixels, Size
from fdiff.pipelines.sana import Sana, SanaText, read
from fdiff.pipelines.steering import Acting, Control, Numbers, of_control
from fdiff.pipelines.task import Task, option
from fdiff.pipelines.text import Counts
from fdiff.pipelines.z_image import from_noise
from fdiff.plan import Plan

Nets = SanaControlNetModel | tuple[SanaControlNetModel, ...]


@dataclasses.dataclass(frozen=True)
class SteeredText(SanaText, Acting):
    """Pictures from text, steered by pictures."""

    control_image: Pictures = of_control(-1)
    _: KW_ONLY
    height: Pixels = option(None, OWN)
    width: Pixels = option(None, OWN)


class SteeredCondition(NamedTuple):
    """What the network and its ControlNets are told; leaves are (b, ...)."""

    text: Tokens
    pictures: tuple[jax.Array, ...]  # (b, h, w, c), latents, one for each net


@dataclasses.dataclass(frozen=True)
class SanaControlled:
    """The transformer with ControlNets: (denoiser, trees, control, x, t, condition) -> out."""

    transformer: SanaTransformer2DModel
    nets: tuple[SanaControlNetModel, ...]

    def __call__(
        self, denoiser: Any, trees: Sequence[Any], control: Control, x: jax.Array, t: jax.Array, told: SteeredCondition
    ) -> jax.Array:
        """What the transformer says of x."""
        time, most = jnp.asarray(t, jnp.float32) * self.transformer.timestep_scale, self.transformer.num_layers
        samples: list[jax.Array] = []
        for net, tree, picture, strength in zip(
            self.nets, trees, told.pictures, control.scale * control.on, strict=True
        ):
            said: Any = net.apply({"params": tree}, x, told.text.embeddings, time, told.text.mask, picture, strength)
            both = min(len(samples), len(said))
            samples = [*map(jnp.add, samples, said), *samples[both:], *said[both:]][:most]
        out: jax.Array = denoiser(x, t, told.text, samples)
        return out


class SeenInShape(NamedTuple):
    """Pictures for ControlNets, one batch each, the height and width in latents, and what is cut to, in pixels."""

    seen: list[np.ndarray]
    size: Size
    around: dict[str, Any]


def sized_by_control(
    vae: AutoencoderDC, transformer: SanaTransformer2DModel, controlnet: Nets, control_image: Pictures, height: Pixels,
    width: Pixels, use_resolution_binning: bool,
) -> SeenInShape:  # fmt: skip
    """Stage: the pictures for ControlNets, whose size is that of the picture to draw. Raises as `taken_for` does."""
    found = taken_for(controlnet, control_image, lambda one: pictured_in_shape(
        vae, transformer, "control_image", one, height, width, use_resolution_binning
    ))  # fmt: skip
    return SeenInShape([one.image for one in found], found[0].size, found[0].around)


def steered(
    vae: AutoencoderDC, transformer: SanaTransformer2DModel, controlnet: Nets, params: Params, plan: Plan,
    seen: list[np.ndarray], texts: Counts, denoiser: guidance.Conditional, both: Both,
    controlnet_conditioning_scale: Numbers, control_guidance_start: Numbers, control_guidance_end: Numbers,
) -> Steering:  # fmt: skip
    """Stage: the ControlNets, which see the latents of their pictures, one each.

    Raises ValueError for another number of settings, trees or pictures than of nets, and nets of another model.
    """
    nets, trees, acts = acting(
        transformer, controlnet, params, plan, controlnet_conditioning_scale, control_guidance_start,
        control_guidance_end,
    )  # fmt: skip
    shown = tuple(latents_seen(vae, params, array, None, texts.batch_size, texts.prompts) for array in seen)
    positive, negative = (None if side is None else SteeredCondition(side, shown) for side in both)
    return Steering(Partial(SanaControlled(transformer, nets), denoiser, trees, acts), (positive, negative))


drawing = Task(
    SteeredText, (sized_by_control, planned, read, from_noise, steered, guided), pictures,
    "Draw pictures from text with Sana, steered by pictures.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SanaControlNetPipeline(Sana):
    """Pictures from text with Sana, steered by one or several ControlNets (Zhang et al. 2023).

        pipe, params = DiffusionPipeline.from_pretrained("ishan24/Sana_600M_1024px_ControlNetPlus_diffusers")
        images = pipe(params, "a cat", control_image=edges, key=key).images

    Several come as a list, controlnet=[net, another].
    """

    siblings: ClassVar[dict[str, str]] = {}

    controlnet: Nets = dataclasses.field(kw_only=True)

    __call__, steps = drawing.methods()
