"""Qwen-Image steered by pictures: edges, depth, poses, as its ControlNets know them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial

from fdiff import guidance
from fdiff.models import AutoencoderKLQwenImage, QwenImageControlNetModel, QwenImageTransformer2DModel
from fdiff.models.transformer_flux import share
from fdiff.pipelines import inputs
from fdiff.pipelines.denoise import Both
from fdiff.pipelines.draws import Seed, Wanted, draw_before
from fdiff.pipelines.flow import T, planned
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
from fdiff.pipelines.qwenimage import Asked, QwenImage, QwenImageCondition, guided, read, squares
from fdiff.pipelines.requests import Latents, Pictures, RepatchedPicture, Size
from fdiff.pipelines.steering import Acting, Control, Numbers, of_control
from fdiff.pipelines.task import Key, Task
from fdiff.pipelines.text import Counts
from fdiff.pipelines.text_to_image import from_noise
from fdiff.plan import Plan

Nets = QwenImageControlNetModel | tuple[QwenImageControlNetModel, ...]


@dataclasses.dataclass(frozen=True)
class SteeredText(Asked, Acting, RepatchedPicture, Latents):
    """Pictures from text, steered by pictures."""

    control_image: Pictures = of_control(-1)


@dataclasses.dataclass(frozen=True)
class SteeredMasked(InPart, Asked, Acting, RepatchedPicture, Latents):
    """A part of a picture painted anew by ControlNets that see the rest of it."""


class SteeredCondition(NamedTuple):
    """What the network is told, and what its ControlNets are: the prompt, whatever the network is told."""

    condition: QwenImageCondition
    prompt: QwenImageCondition
    pictures: tuple[jax.Array, ...]  # for each net squares of latents (b, h, w, c)


@dataclasses.dataclass(frozen=True)
class QwenImageControlled:
    """The transformer with ControlNets: (denoiser, trees, control, x, t, condition) -> out."""

    transformer: QwenImageTransformer2DModel
    nets: tuple[QwenImageControlNetModel, ...]

    def __call__(
        self, denoiser: Any, trees: Sequence[Any], control: Control, x: jax.Array, t: jax.Array, told: SteeredCondition
    ) -> jax.Array:
        """What points from the picture to noise."""
        count, prompt = self.transformer.num_layers, told.prompt
        sums: list[Any] = [0.0] * count
        for net, tree, picture, strength in zip(
            self.nets, trees, told.pictures, control.scale * control.on, strict=True
        ):
            said: Any = net.apply({"params": tree}, squares(x), picture, t / T, prompt.text, prompt.mask, strength)
            sums = [total + share(said, i, count) for i, total in enumerate(sums)]
        out: jax.Array = denoiser(x, t, told.condition, sums)
        return out


class Shown(NamedTuple):
    """What each net sees, squares of latents (b, h, w, c), and the seed of what is drawn after it."""

    shown: tuple[jax.Array, ...]
    torch_seed: Seed


def shown(
    vae: AutoencoderKLQwenImage, params: Params, plan: Plan, size: Size, seen: list[np.ndarray], texts: Counts,
    key: Key, torch_seed: Seed,
) -> Shown:  # fmt: skip
    """Stage: the latents of the pictures for ControlNets. Raises ValueError for another number of pictures."""
    count, prompts = texts.batch_size, texts.prompts
    shape = (count, *size, vae.latent_channels)
    wanted = [Wanted(shape[1:], 0 if inputs.holds_latents(vae, array) else None) for array in seen]
    drawn, seed = draw_before(key, torch_seed, plan, shape, texts.dtype, *wanted)
    found = (
        latents_seen(vae, params, array, noise, count, prompts) for array, noise in zip(seen, drawn, strict=True)
    )
    return Shown(tuple(squares(one) for one in found), seed)


class ShownInPart(NamedTuple):
    """What each net sees, squares of latents and of the mask (b, h, w, c)."""

    shown: tuple[jax.Array, ...]


def shown_in_squares(
    vae: AutoencoderKLQwenImage, params: Params, seen: list[np.ndarray], mask: np.ndarray, texts: Counts
) -> ShownInPart:
    """Stage: the most probable latents of the rest of a picture, and where that is."""
    return ShownInPart(tuple(squares(one) for one in rest_latents(vae, params, seen, mask, texts)))


def steered(
    transformer: QwenImageTransformer2DModel, controlnet: Nets, params: Params, plan: Plan,
    shown: tuple[jax.Array, ...], denoiser: guidance.Conditional, both: Both, controlnet_conditioning_scale: Numbers,
    control_guidance_start: Numbers, control_guidance_end: Numbers,
) -> Steering:  # fmt: skip
    """Stage: the ControlNets.

    Raises ValueError for another number of settings or trees than of nets, and nets of another model or for more or
    fewer channels.
    """
    nets, trees, acts = acting(
        transformer, controlnet, params, plan, controlnet_conditioning_scale, control_guidance_start,
        control_guidance_end,
    )  # fmt: skip
    seen = (net.in_channels + net.extra_condition_channels for net in nets)
    check_channels(seen, shown, "QwenImageControlNetInpaintPipeline", "QwenImageControlNetPipeline")
    positive, negative = (None if side is None else SteeredCondition(side, both[0], shown) for side in both)
    return Steering(Partial(QwenImageControlled(transformer, nets), denoiser, trees, acts), (positive, negative))


drawing = Task(
    SteeredText, (sized_by_control, planned, read, shown, from_noise, steered, guided), pictures,
    "Draw pictures from text with Qwen-Image, steered by pictures.",
)  # fmt: skip
inpainting = Task(
    SteeredMasked,
    (sized_by_control, rest_seen, planned, read, shown_in_squares, from_noise, steered, guided), pictures,
    "Paint a part of a picture anew with Qwen-Image and a ControlNet that sees the rest.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SteeredQwenImage(QwenImage):
    """Qwen-Image and ControlNets."""

    siblings: ClassVar[dict[str, str]] = {}

    controlnet: QwenImageControlNetModel | tuple[QwenImageControlNetModel, ...] = dataclasses.field(kw_only=True)


@dataclasses.dataclass(frozen=True)
class QwenImageControlNetPipeline(SteeredQwenImage):
    """Pictures from text with Qwen-Image, steered by one or several ControlNets (Zhang et al. 2023).

        net = QwenImageControlNetModel.from_pretrained("InstantX/Qwen-Image-ControlNet-Union", dtype="bfloat16")
        pipe, params = QwenImageControlNetPipeline.from_pretrained("Qwen/Qwen-Image", controlnet=net, dtype="bfloat16")

    Several come as a list, controlnet=[net, another], as does a union for several pictures, controlnet=[net, net].
    """

    __call__, steps = drawing.methods()


@dataclasses.dataclass(frozen=True)
class QwenImageControlNetInpaintPipeline(SteeredQwenImage):
    """A part of a picture painted anew with Qwen-Image and a ControlNet that sees the rest of it.

    net = QwenImageControlNetModel.from_pretrained("InstantX/Qwen-Image-ControlNet-Inpainting", dtype="bfloat16")
    """

    __call__, steps = inpainting.methods()
