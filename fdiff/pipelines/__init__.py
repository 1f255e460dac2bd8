"""Pipelines: one file a task, with the pure function and the host class around it."""

from fdiff.pipelines.class_conditional import DIGITS, ClassConditionalPipeline, class_conditional
from fdiff.pipelines.image_to_image import StableDiffusionImg2ImgPipeline, image_to_image
from fdiff.pipelines.inpaint import StableDiffusionInpaintPipeline, inpaint
from fdiff.pipelines.pipeline import DiffusionPipeline, ImageOutput
from fdiff.pipelines.text_to_image import StableDiffusionPipeline, text_to_image
from fdiff.pipelines.text_to_image_xl import StableDiffusionXLPipeline
from fdiff.pipelines.unconditional import DDIMPipeline, DDPMPipeline, unconditional

__all__ = [
    "DIGITS",
    "ClassConditionalPipeline",
    "DDIMPipeline",
    "DDPMPipeline",
    "DiffusionPipeline",
    "ImageOutput",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "class_conditional",
    "image_to_image",
    "inpaint",
    "text_to_image",
    "unconditional",
]
