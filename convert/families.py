"""What single-file checkpoints do not say: the configs of the models that are in them, as on the Hub.

Keys that are not here have the defaults of their classes.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from convert.tensors import Tensor

Config = dict[str, Any]


class Family(NamedTuple):
    """Checkpoints that are alike: what a Hub repository says of them."""

    pipeline: str | None  # None: a model without a pipeline
    models: dict[str, tuple[str, Config]]  # component -> its class and config.json
    scheduler: Config  # scheduler_config.json, empty without a pipeline
    options: Config  # what else model_index.json says


CROSS = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
PLAIN = ("DownBlock2D", "UpBlock2D")

SD1_UNET: Config = {"sample_size": 64, "cross_attention_dim": 768}
SD2_UNET: Config = {
    "sample_size": 96,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
    "upcast_attention": True,
}
SDXL_UNET: Config = {
    "sample_size": 128,
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "transformer_layers_per_block": [1, 2, 10],
    "down_block_types": [PLAIN[0], CROSS[0], CROSS[0]],
    "up_block_types": [CROSS[1], CROSS[1], PLAIN[1]],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
REFINER_UNET: Config = {
    **SDXL_UNET,
    "cross_attention_dim": 1280,
    "attention_head_dim": [6, 12, 24, 24],
    "block_out_channels": [384, 768, 1536, 1536],
    "transformer_layers_per_block": 4,
    "down_block_types": [PLAIN[0], CROSS[0], CROSS[0], PLAIN[0]],
    "up_block_types": [PLAIN[1], CROSS[1], CROSS[1], PLAIN[1]],
    "projection_class_embeddings_input_dim": 2560,
}
VAE: Config = {
    "sample_size": 512,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
SDXL_VAE: Config = {**VAE, "sample_size": 1024, "scaling_factor": 0.13025}
CLIP_L: Config = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "projection_dim": 768,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
OPENCLIP_H: Config = {
    **CLIP_L,
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 23,
    "projection_dim": 512,
}
OPENCLIP_G: Config = {
    **CLIP_L,
    "hidden_act": "gelu",
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}
NOISE: Config = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
}
PNDM: Config = {
    **NOISE,
    "_class_name": "PNDMScheduler",
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
}
DDIM: Config = {**NOISE, "_class_name": "DDIMScheduler", "clip_sample": False, "set_alpha_to_one": False}
PLAYGROUND: Config = {
    "_class_name": "EDMDPMSolverMultistepScheduler", "sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5,
}  # fmt: skip
EULER: Config = {**NOISE, "_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}

TEXT, PROJECTED = "CLIPTextModel", "CLIPTextModelWithProjection"
SD1 = Family(
    "StableDiffusionPipeline",
    {
        "unet": ("UNet2DConditionModel", SD1_UNET),
        "vae": ("AutoencoderKL", VAE),
        "text_encoder": (TEXT, CLIP_L),
        "controlnet": ("ControlNetModel", {"cross_attention_dim": 768}),
    },
    PNDM,
    {"requires_safety_checker": False},
)
SD2 = Family(
    "StableDiffusionPipeline",
    {
        "unet": ("UNet2DConditionModel", SD2_UNET),
        "vae": ("AutoencoderKL", {**VAE, "sample_size": 768}),
        "text_encoder": (TEXT, OPENCLIP_H),
        "controlnet": ("ControlNetModel", {key: SD2_UNET[key] for key in SD2_UNET if key != "sample_size"}),
    },
    DDIM,
    {"requires_safety_checker": False},
)
SDXL = Family(
    "StableDiffusionXLPipeline",
    {
        "unet": ("UNet2DConditionModel", SDXL_UNET),
        "vae": ("AutoencoderKL", SDXL_VAE),
        "text_encoder": (TEXT, CLIP_L),
        "text_encoder_2": (PROJECTED, OPENCLIP_G),
    },
    EULER,
    {"force_zeros_for_empty_prompt": True},
)
REFINER = Family(
    "StableDiffusionXLImg2ImgPipeline",
    {
        "unet": ("UNet2DConditionModel", REFINER_UNET),
        "vae": ("AutoencoderKL", SDXL_VAE),
        "text_encoder_2": (PROJECTED, OPENCLIP_G),
    },
    EULER,
    {"force_zeros_for_empty_prompt": False, "requires_aesthetics_score": True},
)

FAMILIES = {768: SD1, 1024: SD2, 2048: SDXL, 1280: REFINER}  # by the width of what the U-Net attends to
PIPELINES: dict[tuple[str | None, int], str] = {
    ("StableDiffusionPipeline", 8): "StableDiffusionInstructPix2PixPipeline",
    ("StableDiffusionPipeline", 9): "StableDiffusionInpaintPipeline",
    ("StableDiffusionXLPipeline", 8): "StableDiffusionXLInstructPix2PixPipeline",
    ("StableDiffusionXLPipeline", 9): "StableDiffusionXLInpaintPipeline",
}  # by the channels that the U-Net reads, where they are not the 4 of the latents


class Said(NamedTuple):
    """What a file or a user says of a checkpoint that its weights do not show."""

    v_prediction: bool | None = None  # whether the U-Net predicts velocities; None: it does in SD 2.x (of 768) alone
    zero_snr: bool = False  # whether it was trained down to pure noise
    edm: Config | None = None  # the scheduler of a network with EDM's preconditioning
    latents: Config | None = None  # mean and deviation of the VAE's latents, which are then scaled by 0.5


def edm(sigma_min: float, sigma_max: float, v_prediction: bool | None) -> Config:
    """The scheduler of a network trained on those noise levels (Karras et al. 2022), as of CosXL: on v, data of 1."""
    kind = "epsilon" if v_prediction is False else "v_prediction"
    levels = {"sigma_min": sigma_min, "sigma_max": sigma_max, "sigma_data": 1.0, "sigma_schedule": "exponential"}
    return {"_class_name": "EDMEulerScheduler", **levels, "prediction_type": kind}


def family(parts: Mapping[str, Mapping[str, Tensor]], said: Said) -> Family:
    """What the components of a checkpoint, under the names of today, belong to. ValueError for another family."""
    latents = {**said.latents, "scaling_factor": 0.5} if said.latents else {}
    changes: dict[str, Config] = {"vae": latents, "unet": {}}
    network = parts.get("unet") or parts.get("controlnet")
    if network is None:  # an autoencoder: which one, its tensors do not tell
        vae = parts.get("vae", {})
        if "bn.running_mean" in vae:
            return Family(None, {"vae": ("AutoencoderKLFlux2", {})}, {}, {})
        decoder = vae.get("decoder.conv_in.weight")
        if decoder is not None and len(decoder.shape) == 5:
            raise ValueError("its autoencoder may be Wan's or Qwen-Image's, which are the same under two names; pass "
                             "config=, a folder or a Hub id with the config.json of one")
        if decoder is not None and decoder.shape[1:2] == (16,):
            raise ValueError("its autoencoder may be FLUX.1's or Stable Diffusion 3's, which scale latents otherwise; "
                             "pass config=, a folder or a Hub id with the config.json of one")
        return _only(SDXL if said.latents else SD1, parts, changes)
    keys = [name for name in network if name.endswith(".attn2.to_k.weight")]
    width = network[keys[0]].shape[1] if keys and len(network[keys[0]].shape) > 1 else None
    if width not in FAMILIES:
        raise ValueError(f"its U-Net attends to {width} numbers a token, which no Stable Diffusion does")
    found = FAMILIES[width]
    first = network["conv_in.weight"].shape if "conv_in.weight" in network else ()
    channels = first[1] if len(first) > 1 else 4
    v_prediction = said.v_prediction
    if found is SD2 and v_prediction is None:
        v_prediction = "unet" in parts and channels == 4
    if channels != 4:
        changes["unet"] |= {"in_channels": channels}
    if found is SD2 and not v_prediction:
        changes["unet"] |= {"sample_size": 64}
    if "unet" in parts and "controlnet" in parts:
        found = found._replace(pipeline="StableDiffusionControlNetPipeline")
    elif channels != 4:
        if (found.pipeline, channels) not in PIPELINES:
            raise ValueError(f"its U-Net reads {channels} channels, which fdiff has no single-file pipeline for")
        found = found._replace(pipeline=PIPELINES[found.pipeline, channels])
    noise = found.scheduler | ({"prediction_type": "v_prediction"} if v_prediction else {})
    if said.zero_snr:
        noise |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return _only(found._replace(scheduler=said.edm or noise), parts, changes)


def _only(found: Family, parts: Mapping[str, Any], changes: Mapping[str, Config]) -> Family:
    """The family with the models that are there, and with the changes in their configs."""
    unknown = sorted(parts.keys() - found.models.keys())
    if unknown:
        raise ValueError(f"it holds a {unknown[0]}, which does not belong to its U-Net")
    models = {
        name: (kind, config | changes.get(name, {})) for name, (kind, config) in found.models.items() if name in parts
    }
    if "unet" in models:
        return found._replace(models=models)
    return found._replace(pipeline=None, models=models, scheduler={}, options={})
