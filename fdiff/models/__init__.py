"""One file for each Hub model class, named like it; layers/ holds the blocks that they share."""

from fdiff import registry
from fdiff.models.autoencoder_asym_kl import AsymmetricAutoencoderKL
from fdiff.models.autoencoder_kl import AutoencoderKL
from fdiff.models.autoencoder_kl_flux2 import AutoencoderKLFlux2
from fdiff.models.autoencoder_tiny import AutoencoderTiny
from fdiff.models.causal_lm import Gemma2Model, Qwen3ForCausalLM
from fdiff.models.clip_text import CLIPTextModel, CLIPTextModelWithProjection
from fdiff.models.clip_vision import CLIPVisionModel, CLIPVisionModelWithProjection
from fdiff.models.controlnet import ControlNetModel
from fdiff.models.controlnet_union import ControlNetUnionModel
from fdiff.models.controlnet_xs import UNetControlNetXSModel
from fdiff.models.controlnet_xs_adapter import ControlNetXSAdapter
from fdiff.models.model import Model
from fdiff.models.safety_checker import StableDiffusionSafetyChecker
from fdiff.models.t2i_adapter import T2IAdapter
from fdiff.models.t5 import T5EncoderModel, UMT5EncoderModel
from fdiff.models.transformer_flux import FluxTransformer2DModel
from fdiff.models.transformer_flux2 import Flux2Transformer2DModel
from fdiff.models.transformer_z_image import ZImageTransformer2DModel
from fdiff.models.unet_2d import UNet2DModel
from fdiff.models.unet_2d_condition import UNet2DConditionModel
from fdiff.models.vq_model import VQModel

__all__ = [
    "AsymmetricAutoencoderKL",
    "AutoencoderKL",
    "AutoencoderKLFlux2",
    "AutoencoderTiny",
    "CLIPTextModel",
    "CLIPTextModelWithProjection",
    "CLIPVisionModel",
    "CLIPVisionModelWithProjection",
    "ControlNetModel",
    "ControlNetUnionModel",
    "ControlNetXSAdapter",
    "Flux2Transformer2DModel",
    "FluxTransformer2DModel",
    "Gemma2Model",
    "Model",
    "Qwen3ForCausalLM",
    "StableDiffusionSafetyChecker",
    "T2IAdapter",
    "T5EncoderModel",
    "UMT5EncoderModel",
    "UNet2DConditionModel",
    "UNet2DModel",
    "UNetControlNetXSModel",
    "VQModel",
    "ZImageTransformer2DModel",
]

registry.register_all({name: globals()[name] for name in __all__}, Model)
