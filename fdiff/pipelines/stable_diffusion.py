"""Stable Diffusion 1.x and 2.x (Rombach et al. 2022): what each of its pipelines consists of, and does."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from fdiff.image_processors import CLIPImageProcessor
from fdiff.models import (
    AutoencoderKL,
    CLIPTextModel,
    CLIPVisionModelWithProjection,
    ControlNetModel,
    StableDiffusionSafetyChecker,
    T2IAdapter,
    UNet2DConditionModel,
)
from fdiff.pipelines import latent, text
from fdiff.pipelines.crop import cropped
from fdiff.pipelines.denoise import denoising, guided
from fdiff.pipelines.depth_to_image import Deep, at_depth, deep
from fdiff.pipelines.image_to_image import from_picture
from fdiff.pipelines.inpaint import from_masked, masked
from fdiff.pipelines.inputs import pictured
from fdiff.pipelines.instruct_pix2pix import Instruct, guided_by_both, scaled, seen
from fdiff.pipelines.latent import pictures, sized
from fdiff.pipelines.pipeline import DiffusionPipeline
from fdiff.pipelines.plans import planned
from fdiff.pipelines.requests import Masked, Picture, Text
from fdiff.pipelines.steering import (
    AdaptedText,
    ControlledMasked,
    ControlledPicture,
    ControlledText,
    adapted,
    control_seen,
    sized_by_adapter,
    sized_by_control,
    steered,
)
from fdiff.pipelines.task import Task
from fdiff.pipelines.text import CLIPEncoder, conditions, read, seeing
from fdiff.pipelines.text_to_image import from_noise
from fdiff.pipelines.upscale import Upscale, beside_small, small, told_small
from fdiff.schedulers import Scheduler
from fdiff.tokenizers import CLIPTokenizer

FROM_TEXT = "Draw pictures from text."
FROM_PICTURE = "Redraw a picture as a text says (SDEdit, Meng et al. 2022)."
IN_PART = "Paint a part of a picture anew."
STEERED = tuple(f"{what[:-1]}, steered by one or several ControlNets (Zhang et al. 2023)."
                for what in (FROM_TEXT, "Redraw a picture as a text says.", IN_PART))

READING = (seeing, read)
MASKED = (cropped, pictured, masked)

drawing = Task(Text, (sized, planned, *READING, from_noise, conditions, denoising, guided), pictures, FROM_TEXT)
redrawing = Task(
    Picture, (pictured, planned, *READING, from_picture, conditions, denoising, guided), pictures, FROM_PICTURE
)
inpainting = Task(
    Masked, (*MASKED, planned, *READING, from_masked, conditions, denoising, guided), pictures, IN_PART
)
drawing_steered = Task(
    ControlledText,
    (sized_by_control, planned, *READING, from_noise, conditions, denoising, steered, guided),
    pictures, STEERED[0],
)  # fmt: skip
redrawing_steered = Task(
    ControlledPicture,
    (pictured, control_seen, planned, *READING, from_picture, conditions, denoising, steered, guided),
    pictures, STEERED[1],
)  # fmt: skip
inpainting_steered = Task(
    ControlledMasked,
    (*MASKED, control_seen, planned, *READING, from_masked, conditions, denoising, steered, guided),
    pictures, STEERED[2],
)  # fmt: skip
drawing_adapted = Task(
    AdaptedText,
    (sized_by_adapter, planned, *READING, from_noise, conditions, denoising, adapted, guided),
    pictures, "Draw pictures from text, steered by one or several T2I-Adapters (Mou et al. 2023).",
)  # fmt: skip
redrawing_at_depth = Task(
    Deep,
    (pictured, at_depth, planned, *READING, from_picture, deep, conditions, denoising, guided),
    pictures, "Redraw a picture and its depth as a text says.",
)  # fmt: skip
upscaling = Task(
    Upscale,
    (small, planned, *READING, beside_small, conditions, told_small, denoising, guided),
    pictures, "Draw a picture four times as large.",
)  # fmt: skip
instructing = Task(
    Instruct,
    (pictured, planned, scaled, *READING, seen, from_noise, conditions, denoising,
     guided_by_both),
    pictures, "Edit a picture as a text says (Brooks et al. 2023).",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class StableDiffusion(DiffusionPipeline):
    """The components of Stable Diffusion 1.x and 2.x; a text encoder that is None needs prompt_embeds.

    The safety checker of a checkpoint is loaded only when asked for: from_pretrained(..., safety_checker=True).
    """

    family: ClassVar[str] = "Stable Diffusion"
    encoders: ClassVar[tuple[Any, ...]] = (CLIPEncoder(),)
    siblings: ClassVar[dict[str, str]] = {
        "image": "StableDiffusionImg2ImgPipeline", "mask_image": "StableDiffusionInpaintPipeline",
        "ControlNetModel": "StableDiffusionControlNetPipeline",
        "ControlNetXSAdapter": "StableDiffusionControlNetXSPipeline",
    }  # fmt: skip

    vae: AutoencoderKL
    text_encoder: CLIPTextModel | None
    tokenizer: CLIPTokenizer | None
    unet: UNet2DConditionModel
    scheduler: Scheduler
    safety_checker: StableDiffusionSafetyChecker | None = None
    feature_extractor: CLIPImageProcessor | None = None
    image_encoder: CLIPVisionModelWithProjection | None = None

    encode_prompt = text.encode_prompt
    decode = latent.decode


@dataclasses.dataclass(frozen=True)
class StableDiffusionPipeline(StableDiffusion):
    """Pictures from text with Stable Diffusion 1.x and 2.x (Rombach et al. 2022).

    The safety checker of a checkpoint is loaded only when asked for: from_pretrained(..., safety_checker=True).
    """

    __call__, steps = drawing.methods()


@dataclasses.dataclass(frozen=True)
class StableDiffusionImg2ImgPipeline(StableDiffusion):
    """Pictures from a picture and text with Stable Diffusion 1.x and 2.x (SDEdit, Meng et al. 2022)."""

    __call__, steps = redrawing.methods()


@dataclasses.dataclass(frozen=True)
class StableDiffusionInpaintPipeline(StableDiffusion):
    """A part of a picture painted anew with Stable Diffusion 1.x and 2.x, inpainting checkpoints and plain ones."""

    __call__, steps = inpainting.methods()


@dataclasses.dataclass(frozen=True)
class SteeredStableDiffusion(StableDiffusion):
    """The same, and ControlNets.

        net = ControlNetModel.from_pretrained("lllyasviel/control_v11p_sd15_canny")
        pipe, params = StableDiffusionControlNetPipeline.from_pretrained(base, controlnet=net)

    Several come as a list, controlnet=[net, another].
    """

    siblings: ClassVar[dict[str, str]] = {
        "image": "StableDiffusionControlNetImg2ImgPipeline", "mask_image": "StableDiffusionControlNetInpaintPipeline",
    }  # fmt: skip

    controlnet: ControlNetModel | tuple[ControlNetModel, ...] = dataclasses.field(kw_only=True)


@dataclasses.dataclass(frozen=True)
class StableDiffusionControlNetPipeline(SteeredStableDiffusion):
    """Pictures from text, steered by one or several ControlNets (Zhang et al. 2023).

        net = ControlNetModel.from_pretrained("lllyasviel/control_v11p_sd15_canny")
        pipe, params = StableDiffusionControlNetPipeline.from_pretrained(base, controlnet=net)

    Several come as a list, controlnet=[net, another].
    """

    __call__, steps = drawing_steered.methods()


@dataclasses.dataclass(frozen=True)
class StableDiffusionControlNetImg2ImgPipeline(SteeredStableDiffusion):
    """Pictures from a picture and text, steered by one or several ControlNets (Zhang et al. 2023)."""

    __call__, steps = redrawing_steered.methods()


@dataclasses.dataclass(frozen=True)
class StableDiffusionControlNetInpaintPipeline(SteeredStableDiffusion):
    """A part of a picture painted anew, steered by one or several ControlNets (Zhang et al. 2023)."""

    __call__, steps = inpainting_steered.methods()


@dataclasses.dataclass(frozen=True)
class StableDiffusionAdapterPipeline(StableDiffusion):
    """Pictures from text, steered by one or several T2I-Adapters (Mou et al. 2023).

    They are loaded as the nets of `StableDiffusionControlNetPipeline`, as adapter=... The pure function is
    `text_to_image`, with the adapters' features in both conditions.
    """

    adapter: T2IAdapter | tuple[T2IAdapter, ...] = dataclasses.field(kw_only=True)

    __call__, steps = drawing_adapted.methods()


@dataclasses.dataclass(frozen=True)
class StableDiffusionDepth2ImgPipeline(StableDiffusion):
    """Pictures from a picture, its depth and text, with stabilityai/stable-diffusion-2-depth.

    The depth is an input: no depth estimator is part of fdiff. The pure function is `image_to_image`, the depth being
    appended in both conditions.
    """

    __call__, steps = redrawing_at_depth.methods()


@dataclasses.dataclass(frozen=True)
class StableDiffusionInstructPix2PixPipeline(StableDiffusion):
    """Pictures edited as a text says, such as timbrooks/instruct-pix2pix (Brooks et al. 2023)."""

    __call__, steps = instructing.methods()


@dataclasses.dataclass(frozen=True)
class StableDiffusionUpscalePipeline(StableDiffusion):
    """Pictures four times as large, with stabilityai/stable-diffusion-x4-upscaler."""

    low_res_scheduler: Scheduler = dataclasses.field(kw_only=True)
    max_noise_level: int = 350

    __call__, steps = upscaling.methods()
