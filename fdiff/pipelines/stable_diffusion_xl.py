"""SDXL (Podell et al. 2023), and what was distilled from it: what its pipelines consist of, and do."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fdiff.image_processors import CLIPImageProcessor
from fdiff.models import (
    AutoencoderKL,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
    ControlNetModel,
    T2IAdapter,
    UNet2DConditionModel,
)
from fdiff.pipelines import latent, text
from fdiff.pipelines.checks import numeric
from fdiff.pipelines.denoise import Condition, denoising, each, guided, told_scale
from fdiff.pipelines.image_to_image import from_picture
from fdiff.pipelines.inpaint import from_masked
from fdiff.pipelines.inputs import pictured
from fdiff.pipelines.instruct_pix2pix import InstructLarge, guided_by_both, scaled, seen
from fdiff.pipelines.latent import factor_of, pictures, sized
from fdiff.pipelines.pipeline import DiffusionPipeline
from fdiff.pipelines.plans import planned_in_part
from fdiff.pipelines.requests import LargeMasked, LargePicture, LargeText, MicroConditions, Scale, Size
from fdiff.pipelines.stable_diffusion import FROM_PICTURE, FROM_TEXT, IN_PART, MASKED, READING, STEERED
from fdiff.pipelines.steering import (
    AdaptedLargeText,
    ControlledLargeMasked,
    ControlledLargePicture,
    ControlledLargeText,
    adapted,
    control_seen,
    sized_by_adapter,
    sized_by_control,
    steered,
)
from fdiff.pipelines.task import Task
from fdiff.pipelines.text import CLIPEncoder, Conditions, Texts
from fdiff.pipelines.text_to_image import from_noise
from fdiff.schedulers import Scheduler
from fdiff.tokenizers import CLIPTokenizer


def conditions(
    pipe: Any, vae: AutoencoderKL, unet: UNet2DConditionModel, texts: Texts, size: Size, guidance_scale: Scale,
    micro_conditions: MicroConditions | None, appended: Any = None,
) -> Conditions:  # fmt: skip
    """Stage: the two conditions of SDXL, which is told the size of the picture."""
    told, factor = told_scale(unet, guidance_scale, texts.batch_size), factor_of(vae)
    micro = MicroConditions() if micro_conditions is None else micro_conditions
    pixels = (size[0] * factor, size[1] * factor)

    def condition(side: Any, attention: Any, ids: tuple[float, ...]) -> Condition:
        numbers = jnp.broadcast_to(jnp.asarray(ids, jnp.float32), (texts.batch_size, len(ids)))
        added = {"text_embeds": side.pooled, "time_ids": numbers}
        return Condition(side.embeddings, added, scale=told, appended=appended, attention=attention)

    sides = zip((texts.positive, texts.negative), texts.attention, time_ids(pipe, micro, pixels), strict=True)
    positive, negative = (
        each(side, functools.partial(condition, attention=attention, ids=ids)) for side, attention, ids in sides
    )
    return Conditions((positive, negative))


def time_ids(pipe: Any, micro: MicroConditions, size: Size) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The numbers that SDXL is told: original size, crop, and target size or, to the refiner, the score.

    Raises ValueError for micro-conditions that are not pairs of numbers, and scores that are none.
    """
    if not isinstance(micro, MicroConditions):
        raise ValueError(f"micro_conditions must be fdiff.MicroConditions, not {type(micro).__name__}")
    for name, value in micro._asdict().items():
        if value is None or any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value)):
            continue
        numbers, wanted = np.asarray(value), () if name.endswith("score") else (2,)
        if numbers.shape != wanted or not numeric(numbers):
            raise ValueError(f"{name} of micro_conditions is {value!r}; it must be "
                             f"{'a number' if wanted == () else 'two numbers, (height, width)'}")
    original, target = _or(micro.original_size, size), _or(micro.target_size, size)
    against, against_target = _or(micro.negative_original_size, original), _or(micro.negative_target_size, target)
    scored = getattr(pipe, "requires_aesthetics_score", False)
    same = not scored and micro.negative_original_size is None and micro.negative_target_size is None
    crops = micro.crops_coords_top_left
    against_crops = _or(micro.negative_crops_coords_top_left, crops if same else (0, 0))
    if scored:
        return (*original, *crops, micro.aesthetic_score), (*against, *against_crops, micro.negative_aesthetic_score)
    return (*original, *crops, *target), (*against, *against_crops, *against_target)


def _or(given: Any, default: Any) -> Any:
    return default if given is None else given



drawing = Task(
    LargeText, (sized, planned_in_part, *READING, from_noise, conditions, denoising, guided), pictures, FROM_TEXT
)
redrawing = Task(
    LargePicture, (pictured, planned_in_part, *READING, from_picture, conditions, denoising, guided), pictures,
    FROM_PICTURE,
)  # fmt: skip
inpainting = Task(
    LargeMasked, (*MASKED, planned_in_part, *READING, from_masked, conditions, denoising, guided), pictures,
    IN_PART,
)  # fmt: skip
drawing_steered = Task(
    ControlledLargeText,
    (sized_by_control, planned_in_part, *READING, from_noise, conditions, denoising, steered, guided),
    pictures, STEERED[0],
)  # fmt: skip
redrawing_steered = Task(
    ControlledLargePicture,
    (pictured, control_seen, planned_in_part, *READING, from_picture, conditions, denoising, steered, guided),
    pictures, STEERED[1],
)  # fmt: skip
inpainting_steered = Task(
    ControlledLargeMasked,
    (*MASKED, control_seen, planned_in_part, *READING, from_masked, conditions, denoising, steered, guided),
    pictures, STEERED[2],
)  # fmt: skip
drawing_adapted = Task(
    AdaptedLargeText,
    (sized_by_adapter, planned_in_part, *READING, from_noise, conditions, denoising, adapted, guided),
    pictures, "Draw pictures from text, steered by one or several T2I-Adapters (Mou et al. 2023).",
)  # fmt: skip
instructing = Task(
    InstructLarge,
    (pictured, planned_in_part, scaled, *READING, seen, from_noise, conditions, denoising, guided_by_both), pictures,
    "Edit a picture as a text says (Brooks et al. 2023).",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class StableDiffusionXL(DiffusionPipeline):
    """The components of SDXL; its refiner has the second text encoder alone, and says requires_aesthetics_score."""

    family: ClassVar[str] = "Stable Diffusion XL"
    encoders: ClassVar[tuple[Any, ...]] = (
        CLIPEncoder(penultimate=True),
        CLIPEncoder("tokenizer_2", "text_encoder_2", "prompt_2", penultimate=True),
    )
    siblings: ClassVar[dict[str, str]] = {
        "image": "StableDiffusionXLImg2ImgPipeline", "mask_image": "StableDiffusionXLInpaintPipeline",
        "ControlNetModel": "StableDiffusionXLControlNetPipeline",
        "ControlNetUnionModel": "StableDiffusionXLControlNetUnionPipeline",
        "ControlNetXSAdapter": "StableDiffusionXLControlNetXSPipeline",
    }  # fmt: skip

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    scheduler: Scheduler
    text_encoder: CLIPTextModel | CLIPTextModelWithProjection | None = None
    text_encoder_2: CLIPTextModelWithProjection | None = None
    tokenizer: CLIPTokenizer | None = None
    tokenizer_2: CLIPTokenizer | None = None
    force_zeros_for_empty_prompt: bool = True
    feature_extractor: CLIPImageProcessor | None = None
    image_encoder: CLIPVisionModelWithProjection | None = None

    encode_prompt = text.encode_prompt
    decode = latent.decode


@dataclasses.dataclass(frozen=True)
class SteeredStableDiffusionXL(StableDiffusionXL):
    """The same, and ControlNets."""

    siblings: ClassVar[dict[str, str]] = {
        "image": "StableDiffusionXLControlNetImg2ImgPipeline",
        "mask_image": "StableDiffusionXLControlNetInpaintPipeline",
    }

    controlnet: ControlNetModel | tuple[ControlNetModel, ...] = dataclasses.field(kw_only=True)


@dataclasses.dataclass(frozen=True)
class StableDiffusionXLPipeline(StableDiffusionXL):
    """Pictures from text with SDXL (Podell et al. 2023) and with what was distilled from it: Turbo, LCM."""

    __call__, steps = drawing.methods()


@dataclasses.dataclass(frozen=True)
class StableDiffusionXLImg2ImgPipeline(StableDiffusionXL):
    """Pictures from a picture and text with SDXL, and the refiner of what its base began (Podell et al. 2023)."""

    requires_aesthetics_score: bool = False

    __call__, steps = redrawing.methods()


@dataclasses.dataclass(frozen=True)
class StableDiffusionXLInpaintPipeline(StableDiffusionXL):
    """A part of a picture painted anew with SDXL, inpainting checkpoints and plain ones."""

    requires_aesthetics_score: bool = False

    __call__, steps = inpainting.methods()


@dataclasses.dataclass(frozen=True)
class StableDiffusionXLControlNetPipeline(SteeredStableDiffusionXL):
    """Pictures from text with SDXL (Podell et al. 2023), steered by one or several ControlNets (Zhang et al. 2023).

        net = ControlNetModel.from_pretrained("diffusers/controlnet-canny-sdxl-1.0")
        pipe, params = StableDiffusionXLControlNetPipeline.from_pretrained(base, controlnet=net)

    Several come as a list, controlnet=[net, another].
    """

    __call__, steps = drawing_steered.methods()


@dataclasses.dataclass(frozen=True)
class StableDiffusionXLControlNetImg2ImgPipeline(SteeredStableDiffusionXL):
    """Pictures from a picture and text with SDXL, steered by one or several ControlNets (Zhang et al. 2023)."""

    requires_aesthetics_score: bool = False

    __call__, steps = redrawing_steered.methods()


@dataclasses.dataclass(frozen=True)
class StableDiffusionXLControlNetInpaintPipeline(SteeredStableDiffusionXL):
    """A part of a picture painted anew with SDXL, steered by one or several ControlNets (Zhang et al. 2023)."""

    requires_aesthetics_score: bool = False

    __call__, steps = inpainting_steered.methods()


@dataclasses.dataclass(frozen=True)
class StableDiffusionXLAdapterPipeline(StableDiffusionXL):
    """Pictures from text with SDXL, steered by one or several T2I-Adapters (Mou et al. 2023).

    They are loaded as the nets of `StableDiffusionXLControlNetPipeline`, as adapter=...
    """

    adapter: T2IAdapter | tuple[T2IAdapter, ...] = dataclasses.field(kw_only=True)

    __call__, steps = drawing_adapted.methods()


@dataclasses.dataclass(frozen=True)
class StableDiffusionXLInstructPix2PixPipeline(StableDiffusionXL):
    """Pictures edited as a text says, with SDXL (Brooks et al. 2023), and with CosXL, which says is_cosxl_edit."""

    is_cosxl_edit: bool = False

    __call__, steps = instructing.methods()
