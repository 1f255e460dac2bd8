"""One file for each Hub model class, named like it; layers/ holds the blocks that they share."""

from fdiff import registry
from fdiff.models.ace_step_condition import AceStepConditionEncoder
from fdiff.models.audio_ldm2 import AudioLDM2ProjectionModel, AudioLDM2UNet2DConditionModel
from fdiff.models.autoencoder_asym_kl import AsymmetricAutoencoderKL
from fdiff.models.autoencoder_dc import AutoencoderDC
from fdiff.models.autoencoder_kl import AutoencoderKL
from fdiff.models.autoencoder_kl_flux2 import AutoencoderKLFlux2
from fdiff.models.autoencoder_kl_qwenimage21 import AutoencoderKLQwenImage21
from fdiff.models.autoencoder_kl_wan import AutoencoderKLQwenImage, AutoencoderKLWan
from fdiff.models.autoencoder_oobleck import AutoencoderOobleck
from fdiff.models.autoencoder_tiny import AutoencoderTiny
from fdiff.models.causal_lm import Gemma2Model, Qwen3ForCausalLM, Qwen3Model
from fdiff.models.clap_text import ClapModel, ClapTextModelWithProjection
from fdiff.models.clip_text import CLIPTextModel, CLIPTextModelWithProjection
from fdiff.models.clip_vision import CLIPVisionModel, CLIPVisionModelWithProjection
from fdiff.models.controlnet import ControlNetModel
from fdiff.models.controlnet_flux import FluxControlNetModel
from fdiff.models.controlnet_qwenimage import QwenImageControlNetModel
from fdiff.models.controlnet_sana import SanaControlNetModel
from fdiff.models.controlnet_sd3 import SD3ControlNetModel
from fdiff.models.controlnet_union import ControlNetUnionModel
from fdiff.models.controlnet_xs import UNetControlNetXSModel
from fdiff.models.controlnet_xs_adapter import ControlNetXSAdapter
from fdiff.models.egnn import EGNNModel
from fdiff.models.gpt2 import GPT2Model
from fdiff.models.hifigan import SpeechT5HifiGan
from fdiff.models.model import Model
from fdiff.models.molecule_gnn import MoleculeGNN
from fdiff.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLModel
from fdiff.models.safety_checker import StableDiffusionSafetyChecker
from fdiff.models.seeing_lm import (
    Mistral3ForConditionalGeneration,
    Mistral3Model,
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
)
from fdiff.models.t2i_adapter import T2IAdapter
from fdiff.models.t5 import T5EncoderModel, UMT5EncoderModel
from fdiff.models.transformer_ace_step import AceStepTransformer1DModel
from fdiff.models.transformer_chroma import ChromaTransformer2DModel
from fdiff.models.transformer_dit import DiTTransformer2DModel, is_dit
from fdiff.models.transformer_ernie_image import ErnieImageTransformer2DModel
from fdiff.models.transformer_flux import FluxTransformer2DModel
from fdiff.models.transformer_flux2 import Flux2Transformer2DModel
from fdiff.models.transformer_flux3 import Flux3Transformer2DModel
from fdiff.models.transformer_krea2 import Krea2Transformer2DModel
from fdiff.models.transformer_lumina2 import Lumina2Transformer2DModel
from fdiff.models.transformer_pixart import PixArtTransformer2DModel, is_pixart
from fdiff.models.transformer_qwenimage import QwenImageTransformer2DModel
from fdiff.models.transformer_qwenimage21 import QwenImage21Transformer2DModel
from fdiff.models.transformer_sana import SanaTransformer2DModel
from fdiff.models.transformer_sd3 import SD3Transformer2DModel
from fdiff.models.transformer_stable_audio import StableAudioDiTModel, StableAudioProjectionModel
from fdiff.models.transformer_z_image import ZImageTransformer2DModel
from fdiff.models.unet_1d import UNet1DModel
from fdiff.models.unet_2d import UNet2DModel
from fdiff.models.unet_2d_condition import UNet2DConditionModel
from fdiff.models.vq_model import VQModel

__all__ = [
    "AceStepConditionEncoder",
    "AceStepTransformer1DModel",
    "AsymmetricAutoencoderKL",
    "AudioLDM2ProjectionModel",
    "AudioLDM2UNet2DConditionModel",
    "AutoencoderDC",
    "AutoencoderKL",
    "AutoencoderKLFlux2",
    "AutoencoderKLQwenImage",
    "AutoencoderKLQwenImage21",
    "AutoencoderKLWan",
    "AutoencoderOobleck",
    "AutoencoderTiny",
    "CLIPTextModel",
    "CLIPTextModelWithProjection",
    "CLIPVisionModel",
    "CLIPVisionModelWithProjection",
    "ChromaTransformer2DModel",
    "ClapModel",
    "ClapTextModelWithProjection",
    "ControlNetModel",
    "ControlNetUnionModel",
    "ControlNetXSAdapter",
    "DiTTransformer2DModel",
    "EGNNModel",
    "ErnieImageTransformer2DModel",
    "Flux2Transformer2DModel",
    "Flux3Transformer2DModel",
    "FluxControlNetModel",
    "FluxTransformer2DModel",
    "GPT2Model",
    "Gemma2Model",
    "Krea2Transformer2DModel",
    "Lumina2Transformer2DModel",
    "Mistral3ForConditionalGeneration",
    "Mistral3Model",
    "Model",
    "MoleculeGNN",
    "PixArtTransformer2DModel",
    "Qwen2_5_VLForConditionalGeneration",
    "Qwen2_5_VLModel",
    "Qwen3ForCausalLM",
    "Qwen3Model",
    "Qwen3VLForConditionalGeneration",
    "Qwen3VLModel",
    "QwenImage21Transformer2DModel",
    "QwenImageControlNetModel",
    "QwenImageTransformer2DModel",
    "SD3ControlNetModel",
    "SD3Transformer2DModel",
    "SanaControlNetModel",
    "SanaTransformer2DModel",
    "SpeechT5HifiGan",
    "StableAudioDiTModel",
    "StableAudioProjectionModel",
    "StableDiffusionSafetyChecker",
    "T2IAdapter",
    "T5EncoderModel",
    "UMT5EncoderModel",
    "UNet1DModel",
    "UNet2DConditionModel",
    "UNet2DModel",
    "UNetControlNetXSModel",
    "VQModel",
    "ZImageTransformer2DModel",
]

registry.register_all({name: globals()[name] for name in __all__}, Model)
registry.register(GPT2Model, "GPT2LMHeadModel")  # whose last layer nobody here needs
registry.register(DiTTransformer2DModel, "Transformer2DModel", when=is_dit)
registry.register(PixArtTransformer2DModel, "Transformer2DModel", when=is_pixart)
