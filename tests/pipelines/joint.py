"""Tiny pipelines of transformers over pictures and a text: Stable Diffusion 3's and Chroma's."""

import fdiff
from tests.models.compare import from_torch
from tests.pipelines import checkpoints, transformers
from tests.reference import make_joint
from tests.reference.make_transformers import build_of

LATENTS = 16  # which diffusers counts to know what is latents
VAE = {**transformers.SHIFTED_VAE, "latent_channels": LATENTS, "use_quant_conv": False, "use_post_quant_conv": False}
T5 = {**transformers.T5, "d_model": 36}
SD35 = {
    **make_joint.CONFIGS["sd35"][1], "in_channels": LATENTS, "out_channels": LATENTS, "joint_attention_dim": 36,
    "pooled_projection_dim": 32, "pos_embed_max_size": 8,
}  # fmt: skip


def t5(folder, options=T5):
    """(model, tokenizer) of transformers, the tokenizer from that folder."""
    from transformers import AutoTokenizer, T5Config, T5EncoderModel

    model = checkpoints.seeded(lambda: T5EncoderModel(T5Config(**options)), 4)
    return model, AutoTokenizer.from_pretrained(folder)


def vae():
    """Of diffusers."""
    import diffusers

    return checkpoints.seeded(lambda: diffusers.AutoencoderKL(**VAE), 2)


def sd3(folder, **scheduler):
    """Stable Diffusion 3.5, of diffusers, with T5's tokenizer of that folder; `scheduler` are options of it."""
    import diffusers

    clip = [checkpoints.text_encoder(checkpoints.SIZES["tiny"], projection=True, seed=seed) for seed in (3, 5)]
    third, pieces = t5(folder)
    return diffusers.StableDiffusion3Pipeline(
        build_of("SD3Transformer2DModel", SD35),
        diffusers.FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **scheduler}),
        vae(), clip[0], checkpoints.tokenizer(), clip[1], checkpoints.tokenizer("tokenizer_2"), third, pieces,
    )  # fmt: skip


def our_sd3():
    """Stable Diffusion 3.5, of fdiff, without text encoders."""
    models = {"vae": fdiff.AutoencoderKL(**VAE), "transformer": fdiff.SD3Transformer2DModel(**SD35)}
    names = [f"{kind}{number}" for kind in ("text_encoder", "tokenizer") for number in ("", "_2", "_3")]
    scheduler = fdiff.FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipe = fdiff.StableDiffusion3Pipeline(scheduler=scheduler, **models, **dict.fromkeys(names))
    return transformers.drawn(pipe, "vae", "transformer")


CHROMA = {**make_joint.CHROMA, "in_channels": 4 * LATENTS, "joint_attention_dim": 36}


def chroma(folder):
    """Chroma, of diffusers, with T5's tokenizer of that folder."""
    import diffusers

    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    transformer = build_of("ChromaTransformer2DModel", CHROMA)
    transformer.register_to_config(guidance_embeds=False)  # which diffusers' inpainting asks for
    return diffusers.ChromaPipeline(scheduler, vae(), *t5(folder), transformer)


def our_chroma():
    """Chroma, of fdiff, without a text encoder."""
    scheduler = fdiff.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    models = {"vae": fdiff.AutoencoderKL(**VAE), "transformer": fdiff.ChromaTransformer2DModel(**CHROMA)}
    pipe = fdiff.ChromaPipeline(scheduler=scheduler, text_encoder=None, tokenizer=None, **models)
    return transformers.drawn(pipe, "vae", "transformer")


# -- ControlNets -------------------------------------------------------------------------------------------------------

SD3_CONTROL = {**SD35, "num_layers": 2, "dual_attention_layers": ()}
SD3_ALONE = {
    **SD3_CONTROL, "joint_attention_dim": None, "use_pos_embed": False, "pos_embed_type": None,
    "force_zeros_for_pooled_projection": False, "num_layers": 3,
}  # fmt: skip
FLUX_CONTROL = {
    **transformers.FLUX, "num_layers": 2, "num_single_layers": 1, "guidance_embeds": True, "num_mode": 3,
}  # fmt: skip
FLUX_PLAIN = {**FLUX_CONTROL, "num_mode": None, "num_layers": 1, "num_single_layers": 0}
FLUX_HINT = {
    **FLUX_CONTROL, "num_mode": None, "patch_size": 2, "conditioning_embedding_channels": 4, "num_single_layers": 0,
}  # fmt: skip


def certain(vae):
    """The autoencoder of diffusers, whose latents of a picture hardly vary."""
    half = vae.encoder.conv_out.bias.shape[0] // 2
    vae.encoder.conv_out.weight.data[half:] = 0
    vae.encoder.conv_out.bias.data[half:] = -100
    return vae


def control(name, options, seed=7):
    """(theirs, ours, params) of a ControlNet."""
    theirs = checkpoints.seeded(lambda: build_of(name, options), seed)
    return theirs, *from_torch(getattr(fdiff, name), theirs)
