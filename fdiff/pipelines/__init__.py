"""Pipelines: one file a task, with the pure function and the host class around it."""

from fdiff.pipelines.adapter import StableDiffusionAdapterPipeline
from fdiff.pipelines.class_conditional import DIGITS, ClassConditionalPipeline, class_conditional
from fdiff.pipelines.controlnet import StableDiffusionControlNetPipeline
from fdiff.pipelines.controlnet_image_to_image import StableDiffusionControlNetImg2ImgPipeline
from fdiff.pipelines.controlnet_image_to_image_xl import StableDiffusionXLControlNetImg2ImgPipeline
from fdiff.pipelines.controlnet_inpaint import StableDiffusionControlNetInpaintPipeline
from fdiff.pipelines.controlnet_inpaint_xl import StableDiffusionXLControlNetInpaintPipeline
from fdiff.pipelines.controlnet_xl import StableDiffusionXLControlNetPipeline
from fdiff.pipelines.denoise import Condition
from fdiff.pipelines.depth_to_image import StableDiffusionDepth2ImgPipeline
from fdiff.pipelines.image_to_image import StableDiffusionImg2ImgPipeline, image_to_image
from fdiff.pipelines.image_to_image_xl import StableDiffusionXLImg2ImgPipeline
from fdiff.pipelines.inpaint import StableDiffusionInpaintPipeline, inpaint
from fdiff.pipelines.inpaint_xl import StableDiffusionXLInpaintPipeline
from fdiff.pipelines.instruct_pix2pix import StableDiffusionInstructPix2PixPipeline, instruct
from fdiff.pipelines.latent_diffusion import LDMPipeline, latent_diffusion
from fdiff.pipelines.pipeline import DiffusionPipeline, ImageOutput
from fdiff.pipelines.text import MicroConditions
from fdiff.pipelines.text_to_image import StableDiffusionPipeline, text_to_image
from fdiff.pipelines.text_to_image_xl import StableDiffusionXLPipeline
from fdiff.pipelines.unconditional import DDIMPipeline, DDPMPipeline, unconditional
from fdiff.pipelines.upscale import StableDiffusionUpscalePipeline, upscale

__all__ = [
    "DIGITS",
    "ClassConditionalPipeline",
    "Condition",
    "DDIMPipeline",
    "DDPMPipeline",
    "DiffusionPipeline",
    "ImageOutput",
    "LDMPipeline",
    "MicroConditions",
    "StableDiffusionAdapterPipeline",
    "StableDiffusionControlNetImg2ImgPipeline",
    "StableDiffusionControlNetInpaintPipeline",
    "StableDiffusionControlNetPipeline",
    "StableDiffusionDepth2ImgPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionInstructPix2PixPipeline",
    "StableDiffusionPipeline",
    "StableDiffusionUpscalePipeline",
    "StableDiffusionXLControlNetImg2ImgPipeline",
    "StableDiffusionXLControlNetInpaintPipeline",
    "StableDiffusionXLControlNetPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLInpaintPipeline",
    "StableDiffusionXLPipeline",
    "class_conditional",
    "image_to_image",
    "inpaint",
    "instruct",
    "latent_diffusion",
    "text_to_image",
    "unconditional",
    "upscale",
]
