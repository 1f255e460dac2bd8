"""Pipelines: requests, tasks and stages, a file each; the classes that are made of them, a file for each family."""

from fdiff import registry
from fdiff.pipelines.ace_step import AceStepPipeline
from fdiff.pipelines.audio_diffusion import AudioDiffusionPipeline, ClassConditionalSoundPipeline
from fdiff.pipelines.audio_ldm import AudioLDMPipeline, MusicLDMPipeline
from fdiff.pipelines.audio_ldm2 import AudioLDM2Pipeline
from fdiff.pipelines.chroma import ChromaImg2ImgPipeline, ChromaInpaintPipeline, ChromaPipeline
from fdiff.pipelines.class_conditional import DIGITS, MNIST, ClassConditionalPipeline, class_conditional
from fdiff.pipelines.conformers import ConformerPipeline, draw_conformers
from fdiff.pipelines.controlnet_union import (
    StableDiffusionXLControlNetUnionImg2ImgPipeline,
    StableDiffusionXLControlNetUnionInpaintPipeline,
    StableDiffusionXLControlNetUnionPipeline,
)
from fdiff.pipelines.controlnet_xs import StableDiffusionControlNetXSPipeline, StableDiffusionXLControlNetXSPipeline
from fdiff.pipelines.dance_diffusion import DanceDiffusionPipeline
from fdiff.pipelines.denoise import Condition
from fdiff.pipelines.dit import DiTPipeline
from fdiff.pipelines.ernie_image import ErnieImagePipeline
from fdiff.pipelines.flux import FluxImg2ImgPipeline, FluxInpaintPipeline, FluxPipeline
from fdiff.pipelines.flux2 import Flux2KleinPipeline
from fdiff.pipelines.flux2_dev import Flux2Pipeline
from fdiff.pipelines.flux2_inpaint import Flux2KleinInpaintPipeline
from fdiff.pipelines.flux3 import Flux3Pipeline
from fdiff.pipelines.flux_controlnet import (
    FluxControlNetImg2ImgPipeline,
    FluxControlNetInpaintPipeline,
    FluxControlNetPipeline,
)
from fdiff.pipelines.flux_edit import FluxFillPipeline, FluxKontextPipeline
from fdiff.pipelines.image_to_image import image_to_image
from fdiff.pipelines.image_variation import StableDiffusionImageVariationPipeline
from fdiff.pipelines.inpaint import inpaint
from fdiff.pipelines.instruct_pix2pix import instruct
from fdiff.pipelines.krea2 import Krea2Pipeline
from fdiff.pipelines.latent_consistency import (
    LatentConsistencyModelImg2ImgPipeline,
    LatentConsistencyModelPipeline,
)
from fdiff.pipelines.latent_diffusion import LDMPipeline, latent_diffusion
from fdiff.pipelines.latent_upscale import StableDiffusionLatentUpscalePipeline
from fdiff.pipelines.lumina2 import Lumina2Pipeline
from fdiff.pipelines.molecules import MoleculeOutput, MoleculePipeline, draw_molecules
from fdiff.pipelines.pipeline import DiffusionPipeline, ImageOutput
from fdiff.pipelines.pixart import PixArtAlphaPipeline, PixArtSigmaPipeline
from fdiff.pipelines.qwenimage import QwenImageImg2ImgPipeline, QwenImageInpaintPipeline, QwenImagePipeline
from fdiff.pipelines.qwenimage21 import QwenImage21Pipeline
from fdiff.pipelines.qwenimage_controlnet import QwenImageControlNetInpaintPipeline, QwenImageControlNetPipeline
from fdiff.pipelines.qwenimage_edit import (
    QwenImageEditInpaintPipeline,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
)
from fdiff.pipelines.requests import MicroConditions
from fdiff.pipelines.sana import SanaPipeline
from fdiff.pipelines.sana_controlnet import SanaControlNetPipeline
from fdiff.pipelines.sana_sprint import SanaSprintImg2ImgPipeline, SanaSprintPipeline
from fdiff.pipelines.sound import SoundOutput
from fdiff.pipelines.stable_audio import StableAudioPipeline
from fdiff.pipelines.stable_diffusion import (
    StableDiffusionAdapterPipeline,
    StableDiffusionControlNetImg2ImgPipeline,
    StableDiffusionControlNetInpaintPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionDepth2ImgPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    StableDiffusionUpscalePipeline,
)
from fdiff.pipelines.stable_diffusion_3 import (
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3InpaintPipeline,
    StableDiffusion3Pipeline,
)
from fdiff.pipelines.stable_diffusion_3_controlnet import (
    StableDiffusion3ControlNetInpaintingPipeline,
    StableDiffusion3ControlNetPipeline,
)
from fdiff.pipelines.stable_diffusion_xl import (
    StableDiffusionXLAdapterPipeline,
    StableDiffusionXLControlNetImg2ImgPipeline,
    StableDiffusionXLControlNetInpaintPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
    StableDiffusionXLPipeline,
)
from fdiff.pipelines.task import Request, Run, Task, option
from fdiff.pipelines.text_to_image import text_to_image
from fdiff.pipelines.unconditional import DDIMPipeline, DDPMPipeline, unconditional
from fdiff.pipelines.upscale import upscale
from fdiff.pipelines.z_image import ZImageImg2ImgPipeline, ZImageInpaintPipeline, ZImagePipeline

__all__ = [
    "DIGITS",
    "MNIST",
    "AceStepPipeline",
    "AudioDiffusionPipeline",
    "AudioLDM2Pipeline",
    "AudioLDMPipeline",
    "ChromaImg2ImgPipeline",
    "ChromaInpaintPipeline",
    "ChromaPipeline",
    "ClassConditionalPipeline",
    "ClassConditionalSoundPipeline",
    "Condition",
    "ConformerPipeline",
    "DDIMPipeline",
    "DDPMPipeline",
    "DanceDiffusionPipeline",
    "DiTPipeline",
    "DiffusionPipeline",
    "ErnieImagePipeline",
    "Flux2KleinInpaintPipeline",
    "Flux2KleinPipeline",
    "Flux2Pipeline",
    "Flux3Pipeline",
    "FluxControlNetImg2ImgPipeline",
    "FluxControlNetInpaintPipeline",
    "FluxControlNetPipeline",
    "FluxFillPipeline",
    "FluxImg2ImgPipeline",
    "FluxInpaintPipeline",
    "FluxKontextPipeline",
    "FluxPipeline",
    "ImageOutput",
    "Krea2Pipeline",
    "LDMPipeline",
    "LatentConsistencyModelImg2ImgPipeline",
    "LatentConsistencyModelPipeline",
    "Lumina2Pipeline",
    "MicroConditions",
    "MoleculeOutput",
    "MoleculePipeline",
    "MusicLDMPipeline",
    "PixArtAlphaPipeline",
    "PixArtSigmaPipeline",
    "QwenImage21Pipeline",
    "QwenImageControlNetInpaintPipeline",
    "QwenImageControlNetPipeline",
    "QwenImageEditInpaintPipeline",
    "QwenImageEditPipeline",
    "QwenImageEditPlusPipeline",
    "QwenImageImg2ImgPipeline",
    "QwenImageInpaintPipeline",
    "QwenImagePipeline",
    "Request",
    "Run",
    "SanaControlNetPipeline",
    "SanaPipeline",
    "SanaSprintImg2ImgPipeline",
    "SanaSprintPipeline",
    "SoundOutput",
    "StableAudioPipeline",
    "StableDiffusion3ControlNetInpaintingPipeline",
    "StableDiffusion3ControlNetPipeline",
    "StableDiffusion3Img2ImgPipeline",
    "StableDiffusion3InpaintPipeline",
    "StableDiffusion3Pipeline",
    "StableDiffusionAdapterPipeline",
    "StableDiffusionControlNetImg2ImgPipeline",
    "StableDiffusionControlNetInpaintPipeline",
    "StableDiffusionControlNetPipeline",
    "StableDiffusionControlNetXSPipeline",
    "StableDiffusionDepth2ImgPipeline",
    "StableDiffusionImageVariationPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionInstructPix2PixPipeline",
    "StableDiffusionLatentUpscalePipeline",
    "StableDiffusionPipeline",
    "StableDiffusionUpscalePipeline",
    "StableDiffusionXLAdapterPipeline",
    "StableDiffusionXLControlNetImg2ImgPipeline",
    "StableDiffusionXLControlNetInpaintPipeline",
    "StableDiffusionXLControlNetPipeline",
    "StableDiffusionXLControlNetUnionImg2ImgPipeline",
    "StableDiffusionXLControlNetUnionInpaintPipeline",
    "StableDiffusionXLControlNetUnionPipeline",
    "StableDiffusionXLControlNetXSPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLInpaintPipeline",
    "StableDiffusionXLInstructPix2PixPipeline",
    "StableDiffusionXLPipeline",
    "Task",
    "ZImageImg2ImgPipeline",
    "ZImageInpaintPipeline",
    "ZImagePipeline",
    "class_conditional",
    "draw_conformers",
    "draw_molecules",
    "image_to_image",
    "inpaint",
    "instruct",
    "latent_diffusion",
    "option",
    "text_to_image",
    "unconditional",
    "upscale",
]

registry.register_all({name: globals()[name] for name in __all__}, DiffusionPipeline)
registry.register(Lumina2Pipeline, "Lumina2Text2ImgPipeline")  # as older checkpoints call it
