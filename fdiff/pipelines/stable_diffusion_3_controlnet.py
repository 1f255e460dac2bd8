"""Stable Diffusion 3 and 3.5 steered by pictures: edges, depth, poses, as their ControlNets know them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff import guidance
from fdiff.models import AutoencoderKL, SD3ControlNetModel, SD3Transformer2DModel
from fdiff.models.transformer_sd3 import Patches
from fdiff.pipelines.denoise import Both
from fdiff.pipelines.flow_control import (
    InPart,
    Steering,
    acting,
    check_channels,
    latents_seen,
    rest_latents,
    rest_seen,
    sized_by_control,
)
from fdiff.pipelines.latent import pictures
from fdiff.pipelines.pipeline import Params
from fdiff.pipelines.requests import Latents, Pictures, RepatchedPicture
from fdiff.pipelines.stable_diffusion_3 import Asked, SD3Condition, StableDiffusion3, guided, planned, read
from fdiff.pipelines.steering import Acting, Control, Numbers, of_control, several
from fdiff.pipelines.task import Task
from fdiff.pipelines.text import Counts
from fdiff.pipelines.text_to_image import from_noise
from fdiff.plan import Plan

Nets = SD3ControlNetModel | tuple[SD3ControlNetModel, ...]


@dataclasses.dataclass(frozen=True)
class SteeredText(Asked, Acting, RepatchedPicture, Latents):
    """Pictures from text, steered by pictures."""

    control_image: Pictures = of_control(-1)


@dataclasses.dataclass(frozen=True)
class SteeredMasked(InPart, Asked, Acting, RepatchedPicture, Latents):
    """A part of a picture painted anew by ControlNets that see the rest of it."""


@dataclasses.dataclass(frozen=True)
class SD3Controlled:
    """The transformer with ControlNets: (denoiser, trees, control, x, t, condition) -> out."""

    transformer: SD3Transformer2DModel
    nets: tuple[SD3ControlNetModel, ...]

    def __call__(
        self, denoiser: Any, trees: Sequence[Any], control: Control, x: jax.Array, t: jax.Array, told: SD3Condition
    ) -> jax.Array:
        """What points from the picture to noise."""
        found: list[Any] = []
        for net, tree, picture, strength in zip(
            self.nets, trees, told.pictures, control.scale * control.on, strict=True
        ):
            seen = x if net.use_pos_embed else self.patches(denoiser.args[0], x)
            text = None if net.joint_attention_dim is None else told.text
            pooled = jnp.zeros_like(told.pooled) if net.force_zeros_for_pooled_projection else told.pooled
            found.append(net.apply({"params": tree}, seen, picture, text, pooled, t, strength))
        count = self.transformer.num_layers  # as if each had so many blocks, since nets differ in how many they have
        samples = [sum(said[i * len(said) // count] for said in found) for i in range(count)]
        out: jax.Array = denoiser(x, t, told, samples)
        return out

    def patches(self, variables: Any, x: jax.Array) -> jax.Array:
        """What the transformer's own first layer makes of x."""
        own = self.transformer
        made: Any = Patches(own.width, own.patch_size, own.pos_embed_max_size, own.base).apply(
            {"params": variables["params"]["pos_embed"]}, x
        )
        return made


def steered_in_part(
    vae: AutoencoderKL, transformer: SD3Transformer2DModel, controlnet: Nets, params: Params, plan: Plan,
    seen: list[np.ndarray], mask: np.ndarray, texts: Counts, denoiser: guidance.Conditional, both: Both,
    controlnet_conditioning_scale: Numbers, control_guidance_start: Numbers, control_guidance_end: Numbers,
) -> Steering:  # fmt: skip
    """Stage: the ControlNets, which see the most probable latents of the rest of a picture, and where that is.

    Raises ValueError for another number of settings, trees or pictures than of nets, and nets of another model.
    """
    shown = rest_latents(vae, params, seen, mask, texts)
    acts = controlnet_conditioning_scale, control_guidance_start, control_guidance_end
    return with_nets(transformer, controlnet, params, plan, denoiser, both, shown, *acts)


def steered(
    vae: AutoencoderKL, transformer: SD3Transformer2DModel, controlnet: Nets, params: Params, plan: Plan,
    seen: list[np.ndarray], texts: Counts, denoiser: guidance.Conditional, both: Both,
    controlnet_conditioning_scale: Numbers, control_guidance_start: Numbers, control_guidance_end: Numbers,
) -> Steering:  # fmt: skip
    """Stage: the ControlNets, which see the most probable latents of their pictures, one each.

    Those that are told no pooled text were trained on latents without the autoencoder's shift.

    Raises ValueError for another number of settings, trees or pictures than of nets, and nets of another model.
    """
    shift = (vae.shift_factor or 0.0) * vae.scaling_factor
    shown = tuple(
        latents_seen(vae, params, array, None, texts.batch_size, texts.prompts)
        + shift * net.force_zeros_for_pooled_projection
        for net, array in zip(several(controlnet), seen, strict=True)
    )
    acts = controlnet_conditioning_scale, control_guidance_start, control_guidance_end
    return with_nets(transformer, controlnet, params, plan, denoiser, both, shown, *acts)


def with_nets(
    transformer: SD3Transformer2DModel, controlnet: Nets, params: Params, plan: Plan, denoiser: guidance.Conditional,
    both: Both, shown: tuple[jax.Array, ...], scale: Numbers, start: Numbers, end: Numbers,
) -> Steering:  # fmt: skip
    """The network with ControlNets, each of which sees one of the latents (b, h, w, c) that are shown.

    Raises ValueError for another number of settings or trees than of nets, and nets of another model or for more or
    fewer channels.
    """
    nets, trees, acts = acting(transformer, controlnet, params, plan, scale, start, end)
    seen = (net.in_channels + net.extra_conditioning_channels for net in nets)
    check_channels(
        seen, shown, "StableDiffusion3ControlNetInpaintingPipeline", "StableDiffusion3ControlNetPipeline"
    )
    positive, negative = (None if side is None else side._replace(pictures=shown) for side in both)
    return Steering(Partial(SD3Controlled(transformer, nets), denoiser, trees, acts), (positive, negative))


drawing = Task(
    SteeredText, (sized_by_control, planned, read, from_noise, steered, guided), pictures,
    "Draw pictures from text with Stable Diffusion 3, steered by pictures.",
)  # fmt: skip


inpainting = Task(
    SteeredMasked, (sized_by_control, rest_seen, planned, read, from_noise, steered_in_part, guided), pictures,
    "Paint a part of a picture anew with Stable Diffusion 3 and a ControlNet that sees the rest.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SteeredStableDiffusion3(StableDiffusion3):
    """Stable Diffusion 3 and ControlNets."""

    siblings: ClassVar[dict[str, str]] = {}

    controlnet: SD3ControlNetModel | tuple[SD3ControlNetModel, ...] = dataclasses.field(kw_only=True)


@dataclasses.dataclass(frozen=True)
class StableDiffusion3ControlNetPipeline(SteeredStableDiffusion3):
    """Pictures from text with Stable Diffusion 3 and 3.5, steered by one or several ControlNets (Zhang et al. 2023).

        net = SD3ControlNetModel.from_pretrained("InstantX/SD3-Controlnet-Canny", dtype="bfloat16")
        pipe, params = StableDiffusion3ControlNetPipeline.from_pretrained(base, controlnet=net, dtype="bfloat16")

    Several come as a list, controlnet=[net, another].
    """

    __call__, steps = drawing.methods()


@dataclasses.dataclass(frozen=True)
class StableDiffusion3ControlNetInpaintingPipeline(SteeredStableDiffusion3):
    """A part of a picture painted anew with Stable Diffusion 3 and a ControlNet that sees the rest of it.

        net = SD3ControlNetModel.from_pretrained("alimama-creative/SD3-Controlnet-Inpainting", dtype="bfloat16")
    """

    __call__, steps = inpainting.methods()
