"""One file for each Hub model class, named like it; layers/ holds the blocks that they share."""

from fdiff.models.clip_text import CLIPTextModel, CLIPTextModelWithProjection
from fdiff.models.clip_vision import CLIPVisionModel, CLIPVisionModelWithProjection
from fdiff.models.model import Model
from fdiff.models.safety_checker import StableDiffusionSafetyChecker
from fdiff.models.unet_2d import UNet2DModel

__all__ = [
    "CLIPTextModel",
    "CLIPTextModelWithProjection",
    "CLIPVisionModel",
    "CLIPVisionModelWithProjection",
    "Model",
    "StableDiffusionSafetyChecker",
    "UNet2DModel",
]
