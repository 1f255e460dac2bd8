"""Latent consistency models (Luo et al. 2023) by the names that their checkpoints have."""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY
from typing import Any, ClassVar, NamedTuple

from fdiff import guidance
from fdiff.models import UNet2DConditionModel
from fdiff.pipelines.denoise import Network, denoising
from fdiff.pipelines.image_to_image import from_picture
from fdiff.pipelines.inputs import pictured
from fdiff.pipelines.latent import pictures, sized
from fdiff.pipelines.plans import Planned, make_plan
from fdiff.pipelines.requests import Latents, Pictures, Resized, Scale, Sized, Told
from fdiff.pipelines.stable_diffusion import FROM_PICTURE, FROM_TEXT, READING, StableDiffusion
from fdiff.pipelines.task import Task, option
from fdiff.pipelines.text import conditions
from fdiff.pipelines.text_to_image import from_noise
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler
from fdiff.spacing import check_count


@dataclasses.dataclass(frozen=True)
class Consistent(Told):
    """What a latent consistency model is asked."""

    _: KW_ONLY
    guidance_scale: Scale = option(8.5, "how closely to keep to the prompt; the network is told it, at no cost")
    num_inference_steps: int = option(4)
    original_inference_steps: int | None = option(
        None, "steps of the run that was distilled, some of which are done; the scheduler's own if not given"
    )


@dataclasses.dataclass(frozen=True)
class ConsistentText(Consistent, Sized, Latents):
    """Pictures from text."""



@dataclasses.dataclass(frozen=True)
class ConsistentPicture(Consistent, Resized):
    """Pictures from a picture and text."""

    image: Pictures = option(
        None, "what to begin from: PIL, uint8 or float in [-1, 1], (h, w, 3), one for all prompts or one for each"
    )
    _: KW_ONLY
    strength: float = option(0.8, "0 to 1, over how much of the run the steps are laid; all of them are run")


def planned(
    scheduler: Scheduler, num_inference_steps: int, plan: Plan | None, original_inference_steps: int | None,
    strength: float = 1.0,
) -> Planned:  # fmt: skip
    """Stage: all the steps, laid over the last part of the run that a strength leaves."""
    if plan is None:
        check_count("num_inference_steps", num_inference_steps)
        options: dict[str, Any] = {"trained_strength": strength, "original_inference_steps": original_inference_steps}
        plan = scheduler.plan(num_inference_steps, **{name: one for name, one in options.items() if one is not None})
    return Planned(make_plan(scheduler, num_inference_steps, plan))


class Unguided(NamedTuple):
    """Without guidance: it is told."""

    guidance_scale: Scale


def told(unet: UNet2DConditionModel, guidance_scale: Scale) -> Unguided:
    """Stage: a U-Net that is told the scale. Raises ValueError for another one."""
    if unet.time_cond_proj_dim is None:
        raise ValueError("the unet has no time_cond_proj_dim, to be told a guidance scale: it is no latent consistency "
                         "model; load it with StableDiffusionPipeline")
    return Unguided(guidance_scale)


def unguided(denoiser: guidance.Conditional, both: Any) -> Network:
    """Stage: the network under the one condition."""
    return Network(guidance.given(denoiser, both[0]))


drawing = Task(
    ConsistentText, (told, sized, planned, *READING, from_noise, conditions, denoising, unguided), pictures, FROM_TEXT
)
redrawing = Task(
    ConsistentPicture, (told, pictured, planned, *READING, from_picture, conditions, denoising, unguided), pictures,
    FROM_PICTURE,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class LatentConsistencyModelPipeline(StableDiffusion):
    """Pictures from text in a few steps, as SimianLuo/LCM_Dreamshaper_v7 draws them (Luo et al. 2023)."""

    siblings: ClassVar[dict[str, str]] = {"image": "LatentConsistencyModelImg2ImgPipeline"}

    __call__, steps = drawing.methods()


@dataclasses.dataclass(frozen=True)
class LatentConsistencyModelImg2ImgPipeline(StableDiffusion):
    """Pictures from a picture and text in a few steps (Luo et al. 2023)."""

    __call__, steps = redrawing.methods()
