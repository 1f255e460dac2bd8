"""Tiny pipelines of diffusion transformers: of fdiff, and of diffusers with random weights."""

from functools import partial

import jax
import numpy as np
from PIL import Image

import fdiff
from tests.pipelines import checkpoints
from tests.reference import make_autoencoders, make_transformers
from tests.tokenizers import tiny

VAE = {
    "block_out_channels": (4, 4), "norm_num_groups": 2, "latent_channels": 4, "layers_per_block": 1, "sample_size": 32,
    "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
}  # fmt: skip
SHIFTED_VAE = {**VAE, "scaling_factor": 0.3611, "shift_factor": 0.1159}
QWEN = {
    "vocab_size": len(tiny.pieces()), "hidden_size": 10, "intermediate_size": 12, "num_hidden_layers": 3,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 6, "rope_theta": 1e6, "tie_word_embeddings": True,
}  # fmt: skip
Z_IMAGE = {**make_transformers.CONFIGS["z_image"][1], "axes_lens": (200, 16, 16)}
FLUX2_VAE = VAE
FLUX2 = {
    **make_transformers.CONFIGS["flux2_klein"][1], "in_channels": 16, "joint_attention_dim": 3 * QWEN["hidden_size"]
}
FLUX = {**make_transformers.FLUX, "in_channels": 16, "joint_attention_dim": 6, "pooled_projection_dim": 16}
T5 = {"vocab_size": 32128, "d_model": 6, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}


def qwen(seed=3):
    """The text encoder, of transformers."""
    import transformers

    config = transformers.Qwen3Config(**QWEN)
    return checkpoints.seeded(lambda: transformers.Qwen3ForCausalLM(config), seed)


def tokenizer(folder):
    """Its tokenizer, of transformers."""
    import transformers

    return transformers.AutoTokenizer.from_pretrained(tiny.qwen(folder))


def z_image(folder, scheduler=None):
    """Z-Image, of diffusers; the folder is for its tokenizer."""
    import diffusers

    return diffusers.ZImagePipeline(
        scheduler or diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        checkpoints.seeded(lambda: diffusers.AutoencoderKL(**SHIFTED_VAE), 2), qwen(), tokenizer(folder),
        make_transformers.build_of("ZImageTransformer2DModel", Z_IMAGE),
    )  # fmt: skip


def our_z_image(folder, vae=SHIFTED_VAE, qwen=QWEN):
    """Z-Image, of fdiff, without parameters."""
    models = {
        "vae": fdiff.AutoencoderKL(**vae), "text_encoder": fdiff.Qwen3ForCausalLM(**qwen),
        "transformer": fdiff.ZImageTransformer2DModel(**{**Z_IMAGE, "axes_lens": (600, 64, 64)}),
    }  # fmt: skip
    tokenizer = fdiff.Qwen2Tokenizer.from_folder(tiny.qwen(folder))
    return fdiff.ZImagePipeline(fdiff.FlowMatchEulerDiscreteScheduler(shift=3.0), tokenizer=tokenizer, **models)


def klein(folder, **options):
    """FLUX.2 klein, of diffusers."""
    import diffusers
    import torch

    vae = checkpoints.seeded(lambda: diffusers.AutoencoderKLFlux2(**FLUX2_VAE), 2)
    vae.bn.running_mean.copy_(torch.randn(16))
    vae.bn.running_var.copy_(torch.rand(16) + 0.5)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    transformer = make_transformers.build_of("Flux2Transformer2DModel", FLUX2)
    return diffusers.Flux2KleinPipeline(scheduler, vae, qwen(), tokenizer(folder), transformer, **options)


def our_klein(folder, vae=FLUX2_VAE, qwen=QWEN):
    """FLUX.2 klein, of fdiff, without parameters."""
    models = {
        "vae": fdiff.AutoencoderKLFlux2(**vae), "text_encoder": fdiff.Qwen3ForCausalLM(**qwen),
        "transformer": fdiff.Flux2Transformer2DModel(**FLUX2),
    }  # fmt: skip
    scheduler = fdiff.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return fdiff.Flux2KleinPipeline(scheduler, tokenizer=fdiff.Qwen2Tokenizer.from_folder(tiny.qwen(folder)), **models)


def flux(t5, **options):
    """FLUX.1, of diffusers, with T5's tokenizer of that folder; `options` are those of the transformer."""
    import diffusers
    import transformers

    told = {"guidance_embeds": True, **options}
    dynamic = told["guidance_embeds"]  # as dev has it, and schnell has not
    return diffusers.FluxPipeline(
        diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0 if dynamic else 1.0, use_dynamic_shifting=dynamic),
        checkpoints.seeded(lambda: diffusers.AutoencoderKL(**SHIFTED_VAE), 2),
        checkpoints.text_encoder(checkpoints.SIZES["tiny"]), checkpoints.tokenizer(),
        checkpoints.seeded(lambda: transformers.T5EncoderModel(transformers.T5Config(**T5)), 4),
        transformers.AutoTokenizer.from_pretrained(t5),
        make_transformers.build_of("FluxTransformer2DModel", {**FLUX, **told}),
    )  # fmt: skip


@jax.jit
def call(network, x, t):
    """What a network says, compiled."""
    return network(x, t)


@partial(jax.jit, static_argnums=0)
def applied(module, params, *inputs):
    """What a module makes of the inputs, compiled."""
    return module.apply({"params": params}, *inputs)


def drawn(pipe, *names):
    """The pipeline, and parameters in place of zeros and ones."""
    random = np.random.default_rng(0)

    def one(leaf):
        return 0.1 * random.standard_normal(leaf.shape).astype(np.float32)

    return pipe, {name: jax.tree.map(one, getattr(pipe, name).shapes()) for name in names}


FOUR = {
    "block_out_channels": (4,) * 4, "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
DEEP = {**QWEN, "num_hidden_layers": 28}


def z_image_as_shaped(folder):
    """Z-Image, of fdiff, tiny, with eight pixels a latent."""
    return drawn(our_z_image(folder, {**SHIFTED_VAE, **FOUR}), "vae", "text_encoder", "transformer")


def klein_as_shaped(folder):
    """FLUX.2 klein, of fdiff, tiny and distilled, with eight pixels a latent and a text encoder of 28 layers."""
    pipe, params = drawn(our_klein(folder, {**FLUX2_VAE, **FOUR}, DEEP), "vae", "text_encoder", "transformer")
    params["vae"]["bn"]["running_var"] = np.abs(params["vae"]["bn"]["running_var"]) + 0.5
    return pipe.replace(is_distilled=True), params


def photo(width=24, height=16, seed=1):
    """A picture of a few colors."""
    few = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    return Image.fromarray(few).resize((width, height))


def mask(width=24, height=16):
    """White in the middle."""
    picture = Image.new("L", (width, height))
    picture.paste(255, (width // 5, height // 5, 3 * width // 4, 3 * height // 4))
    return picture


GEMMA = {
    "vocab_size": len(tiny.gemma_vocab()), "hidden_size": 10, "intermediate_size": 12, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 6, "query_pre_attn_scalar": 6,
}  # fmt: skip
DC = {
    **make_autoencoders.DC, "latent_channels": 4, "upsample_block_type": "interpolate",
    "downsample_block_type": "conv", "scaling_factor": 0.41407,
}  # fmt: skip
DEEP_DC = {  # of latents as wide as Sana's
    **DC, "encoder_layers_per_block": (1,) * 6, "decoder_layers_per_block": (1,) * 6,
    "encoder_block_types": "ResBlock", "decoder_block_types": "ResBlock", "encoder_block_out_channels": (4,) * 6,
    "decoder_block_out_channels": (4,) * 6, "encoder_qkv_multiscales": ((),) * 6, "decoder_qkv_multiscales": ((),) * 6,
}  # fmt: skip
SANA = {**make_transformers.SANA, "in_channels": 4, "out_channels": 4}
SPRINT = {**SANA, "qk_norm": "rms_norm_across_heads", "guidance_embeds": True}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}


def sana(folder, sprint=False, dc=DC, **options):
    """Sana or Sana-Sprint, of diffusers; the folder is for its tokenizer, `options` are those of the transformer."""
    import diffusers
    from transformers import AutoTokenizer, Gemma2Config, Gemma2Model

    scheduler = diffusers.SCMScheduler() if sprint else diffusers.DPMSolverMultistepScheduler(**FLOW)
    return getattr(diffusers, "SanaSprintPipeline" if sprint else "SanaPipeline")(
        AutoTokenizer.from_pretrained(tiny.gemma(folder)),
        checkpoints.seeded(lambda: Gemma2Model(Gemma2Config(**GEMMA)), 3),
        checkpoints.seeded(lambda: diffusers.AutoencoderDC(**dc), 2),
        make_transformers.build_of("SanaTransformer2DModel", {**(SPRINT if sprint else SANA), **options}), scheduler,
    )  # fmt: skip


def our_sana(folder):
    """Sana, of fdiff, without parameters; the folder is for its tokenizer."""
    models = {"vae": fdiff.AutoencoderDC(**DC), "transformer": fdiff.SanaTransformer2DModel(**SANA)}
    return fdiff.SanaPipeline(
        fdiff.GemmaTokenizer.from_folder(tiny.gemma(folder)), fdiff.Gemma2Model(**GEMMA),
        scheduler=fdiff.DPMSolverMultistepScheduler(**FLOW), **models,
    )  # fmt: skip
