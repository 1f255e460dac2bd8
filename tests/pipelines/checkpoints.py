"""Random checkpoints of Stable Diffusion, built by diffusers: `build(kind)` is a pipeline to run and to save."""

import functools
from pathlib import Path

REFERENCE = Path(__file__).parents[1] / "reference"

# What a checkpoint consists of, by size: tiny ones are stored, medium ones are compared live.
SIZES = {
    "tiny": {"unet": (8,), "vae": (8, 8), "text": 16, "groups": 4, "latents": 8, "factor": 2},
    "medium": {"unet": (32, 64), "vae": (16, 16, 32, 32), "text": 32, "groups": 8, "latents": 16, "factor": 8},
}
SCHEDULER = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False,
    "set_alpha_to_one": False, "steps_offset": 1,
}  # fmt: skip


def seeded(make, seed):
    """make() with torch's random numbers from a seed, in evaluation mode."""
    import torch

    torch.manual_seed(seed)
    return make().eval()


def unet(size, **options):
    from diffusers import UNet2DConditionModel

    channels = size["unet"]
    fields = {
        "sample_size": size["latents"], "in_channels": 4, "out_channels": 4, "block_out_channels": channels,
        "layers_per_block": 1, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D")[: len(channels)],
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")[-len(channels) :], "cross_attention_dim": size["text"],
        "attention_head_dim": 4, "norm_num_groups": size["groups"], **options,
    }  # fmt: skip
    return seeded(lambda: UNet2DConditionModel(**fields), 1)


def vae(size, **options):
    from diffusers import AutoencoderKL

    channels = size["vae"]
    fields = {
        "block_out_channels": channels, "down_block_types": ("DownEncoderBlock2D",) * len(channels),
        "up_block_types": ("UpDecoderBlock2D",) * len(channels), "latent_channels": 4, "layers_per_block": 1,
        "norm_num_groups": size["groups"], "sample_size": size["latents"] * size["factor"], **options,
    }  # fmt: skip
    return seeded(lambda: AutoencoderKL(**fields), 2)


@functools.cache
def tokenizer(name="tokenizer"):
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(REFERENCE / "clip" / name)


def text_encoder(size, projection=False, seed=3):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer()), hidden_size=size["text"], intermediate_size=size["text"], num_attention_heads=4,
        num_hidden_layers=3, eos_token_id=len(tokenizer()) - 1, bos_token_id=len(tokenizer()) - 2, pad_token_id=1,
        projection_dim=size["text"], hidden_act="gelu" if projection else "quick_gelu",
    )  # fmt: skip
    return seeded(lambda: (CLIPTextModelWithProjection if projection else CLIPTextModel)(config), seed)


def stable_diffusion(size="medium", cls="StableDiffusionPipeline", scheduler=None, more=None, **unet_options):
    """A pipeline of diffusers with random weights. `more` are further components."""
    import diffusers

    size = SIZES[size]
    return getattr(diffusers, cls)(
        vae=vae(size), text_encoder=text_encoder(size), tokenizer=tokenizer(), unet=unet(size, **unet_options),
        scheduler=scheduler or diffusers.DDIMScheduler(**SCHEDULER), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False, **more or {},
    )  # fmt: skip


def stable_diffusion_xl(size="medium", cls="StableDiffusionXLPipeline", scheduler=None, refiner=False, **unet_options):
    """The same for SDXL: two text encoders, or the second one alone, as its refiner has."""
    import diffusers

    size = SIZES[size]
    texts, numbers = size["text"] * (1 if refiner else 2), 5 if refiner else 6
    fields = {
        "cross_attention_dim": texts, "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": size["text"] + 8 * numbers, "use_linear_projection": True,
        "transformer_layers_per_block": (2, 1)[: len(size["unet"])], **unet_options,
    }  # fmt: skip
    first = {"text_encoder": None, "tokenizer": None}
    if not refiner:
        first = {"text_encoder": text_encoder(size), "tokenizer": tokenizer()}
    asked = {"requires_aesthetics_score": True} if refiner else {}
    return getattr(diffusers, cls)(
        vae=vae(size), text_encoder_2=text_encoder(size, projection=True, seed=4), tokenizer_2=tokenizer("tokenizer_2"),
        unet=unet(size, **fields), scheduler=scheduler or diffusers.EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
            timestep_spacing="leading",
        ), add_watermarker=False, **first, **asked,
    )  # fmt: skip


def controlnet(size="medium", seed=11):
    """A ControlNet whose last convolutions are not zero."""
    from diffusers import ControlNetModel

    size = SIZES[size]
    net = seeded(
        lambda: ControlNetModel(
            block_out_channels=size["unet"], layers_per_block=1, cross_attention_dim=size["text"],
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D")[: len(size["unet"])], attention_head_dim=4,
            norm_num_groups=size["groups"], conditioning_embedding_out_channels=(4, 8, 8, 16)[: len(size["vae"])],
        ), seed,
    )  # fmt: skip
    return stirred(net)


def controlnet_of(unet, size="medium", seed=11):
    """A ControlNet made of a U-Net of diffusers, as those of SDXL are, whose last convolutions are not zero."""
    from diffusers import ControlNetModel

    channels = (4, 8, 8, 16)[: len(SIZES[size]["vae"])]
    net = seeded(lambda: ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=channels), seed)
    return stirred(net)


def stirred(net):
    """The net with small numbers in place of parameters that are zero."""
    import torch

    for name, parameter in net.named_parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2 if name.endswith("weight") else 0.02)
    return net


def upscaler(size="medium"):
    """The x4 upscaler: seven channels, a class for each noise level."""
    import diffusers

    size = SIZES[size]
    return diffusers.StableDiffusionUpscalePipeline(
        vae=vae({**size, "vae": size["vae"][:3]}), text_encoder=text_encoder(size), tokenizer=tokenizer(),
        unet=unet(size, in_channels=7, num_class_embeds=400), low_res_scheduler=diffusers.DDPMScheduler(**LOW),
        scheduler=diffusers.DDIMScheduler(**SCHEDULER, prediction_type="v_prediction"),
    )  # fmt: skip


LOW = {"beta_schedule": "squaredcos_cap_v2", "clip_sample": True}


def latent_diffusion(size="medium"):
    """An unconditional latent diffusion with a vector-quantized autoencoder."""
    import diffusers

    size = SIZES[size]
    channels, groups = size["vae"][-2:], size["groups"]
    vqvae = seeded(
        lambda: diffusers.VQModel(
            block_out_channels=channels, down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=3, num_vq_embeddings=64, norm_num_groups=groups,
        ), 6,
    )  # fmt: skip
    unet = seeded(
        lambda: diffusers.UNet2DModel(
            sample_size=size["latents"], in_channels=3, out_channels=3, block_out_channels=size["unet"],
            layers_per_block=1, down_block_types=("DownBlock2D", "AttnDownBlock2D")[-len(size["unet"]) :],
            up_block_types=("AttnUpBlock2D", "UpBlock2D")[: len(size["unet"])], norm_num_groups=groups,
            attention_head_dim=8,
        ), 7,
    )  # fmt: skip
    vqvae.quantize.embedding.weight.data *= 64  # codes as far apart as a trained one's: rounding seldom picks another
    return diffusers.LDMPipeline(vqvae, unet, diffusers.DDIMScheduler(**SCHEDULER))


def dit(size="medium"):
    """A DiT for 1,000 classes, as diffusers' pipeline takes the 1000th for none, which also predicts a variance."""
    import diffusers

    size = SIZES[size]
    transformer = seeded(
        lambda: diffusers.DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=4, out_channels=8, num_layers=2, sample_size=size["latents"],
        ), 8,
    )  # fmt: skip
    return diffusers.DiTPipeline(transformer, vae(size), diffusers.DDIMScheduler(**SCHEDULER))
