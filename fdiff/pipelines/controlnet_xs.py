"""Stable Diffusion and SDXL steered by a ControlNetXSAdapter, which sees into the U-Net (Zavadski et al. 2023)."""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import jax
import numpy as np
from jax.tree_util import Partial

from fdiff.models import ControlNetXSAdapter, UNet2DConditionModel, UNetControlNetXSModel
from fdiff.pipelines import stable_diffusion_xl
from fdiff.pipelines.denoise import Both, Denoising, each, guided, tell
from fdiff.pipelines.inputs import check_number, spread
from fdiff.pipelines.latent import pictures
from fdiff.pipelines.pipeline import Params, tree_of
from fdiff.pipelines.plans import planned
from fdiff.pipelines.requests import Guided, Large, Latents, Pictures, Pixels, Resized
from fdiff.pipelines.stable_diffusion import READING, StableDiffusion
from fdiff.pipelines.steering import Control, SeenAndSized, Steered, check_size, control, of_control, sized_by
from fdiff.pipelines.task import Task, option
from fdiff.pipelines.text import Texts, conditions
from fdiff.pipelines.text_to_image import from_noise
from fdiff.plan import Plan

STEERED = "Draw pictures from text, steered by a ControlNetXSAdapter (Zavadski et al. 2023)."
Joint = UNet2DConditionModel | UNetControlNetXSModel


@dataclasses.dataclass(frozen=True)
class JointText(Guided, Resized, Latents):
    """Pictures from text, steered by a picture."""

    image: Pictures = of_control()
    _: KW_ONLY
    controlnet_conditioning_scale: float = option(1.0, "how strongly the picture acts")
    control_guidance_start: float = option(0.0, "the part of the run at which it begins to act, 0 to 1")
    control_guidance_end: float = option(1.0, "the part of the run at which it ends, 0 to 1")


@dataclasses.dataclass(frozen=True)
class JointLargeText(Large, JointText):
    """The same with SDXL."""


@dataclasses.dataclass(frozen=True)
class JointDenoiser:
    """The U-Net and its adapter as one network: (params, control, x, t, Steered) -> out."""

    unet: UNetControlNetXSModel

    def __call__(self, params: Params, acts: Control, x: jax.Array, t: jax.Array, steered: Steered) -> jax.Array:
        """What the network says of x."""
        told = {name: value for name, value in tell(steered.condition).items() if name in TOLD}
        variables = dict(params)
        if steered.condition.attention is not None:
            variables["attention"] = steered.condition.attention
        out: Any = self.unet.apply(
            variables, x, t, controlnet_cond=steered.pictures[0], conditioning_scale=acts.scale[0],
            apply_control=acts.on[0] != 0, **told,
        )  # fmt: skip
        return out


TOLD = ("encoder_hidden_states", "added_cond_kwargs")  # the others no such network has


def sized_by_picture(
    vae: Any, unet: Joint, controlnet: ControlNetXSAdapter, image: Pictures, height: Pixels, width: Pixels
) -> SeenAndSized:
    """Stage: the picture that steers, whose size is that of the picture to draw."""
    return sized_by(vae, unet, "image", image, (controlnet,), (height, width))


def jointly_denoising(
    unet: Joint, controlnet: ControlNetXSAdapter, params: Params, plan: Plan, x: jax.Array, texts: Texts, both: Both,
    seen: list[np.ndarray], called: str, controlnet_conditioning_scale: float, control_guidance_start: float,
    control_guidance_end: float,
) -> Denoising:  # fmt: skip
    """Stage: the joint network, made of a plain U-Net and the adapter where the checkpoint does not hold it already.

    Raises ValueError for a picture of another size, and an adapter of another U-Net.
    """
    model, tree = unet, tree_of(params, "unet")
    if isinstance(model, UNet2DConditionModel):
        model, tree = UNetControlNetXSModel.from_unet(model, tree, controlnet, tree_of(params, "controlnet"))
    check_size(called, seen[0], x.shape, 2 ** (len(model.ctrl_conditioning_embedding_out_channels) - 1))
    check_number(called, seen[0], len(x), texts.prompts)
    acts = control(plan, 1, controlnet_conditioning_scale, control_guidance_start, control_guidance_end)
    ready = (spread(called, seen[0], len(x)),)
    condition, negative = (each(side, lambda one: Steered(one, ready)) for side in both)
    return Denoising(Partial(JointDenoiser(model), {"params": tree}, acts), (condition, negative))


drawing = Task(
    JointText, (sized_by_picture, planned, *READING, from_noise, conditions, jointly_denoising, guided), pictures,
    STEERED,
)  # fmt: skip
drawing_large = Task(
    JointLargeText,
    (sized_by_picture, stable_diffusion_xl.planned_in_part, *READING, from_noise, stable_diffusion_xl.conditions,
     jointly_denoising, guided),
    pictures, STEERED,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class StableDiffusionControlNetXSPipeline(StableDiffusion):
    """Pictures from text, steered by a ControlNetXSAdapter (Zavadski et al. 2023).

    The unet is a plain one, or the joint network that saved checkpoints hold.
    """

    siblings: ClassVar[dict[str, str]] = {}

    controlnet: ControlNetXSAdapter = dataclasses.field(kw_only=True)

    __call__, steps = drawing.methods()


@dataclasses.dataclass(frozen=True)
class StableDiffusionXLControlNetXSPipeline(stable_diffusion_xl.StableDiffusionXL):
    """Pictures from text with SDXL, steered by a ControlNetXSAdapter (Zavadski et al. 2023)."""

    siblings: ClassVar[dict[str, str]] = {}

    controlnet: ControlNetXSAdapter = dataclasses.field(kw_only=True)

    __call__, steps = drawing_large.methods()
