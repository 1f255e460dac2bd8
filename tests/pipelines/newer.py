"""Tiny pipelines of the transformers of 2026: of fdiff, and of diffusers with random weights."""

import fdiff
from tests.pipelines import checkpoints, transformers
from tests.reference import make_seeing_lm, make_single_stream
from tests.tokenizers import tiny

MISTRAL = {"vocab_size": len(tiny.MISTRAL) + len(tiny.pieces()) - len(tiny.ADDED), "hidden_size": 10}
ERNIE_IMAGE = {**make_single_stream.ERNIE_IMAGE, "in_channels": 16, "out_channels": 16, "text_in_dim": 10}
FIXED, DYNAMIC = {"shift": 3.0}, {"shift": 3.0, "use_dynamic_shifting": True}
FLUX2 = {**transformers.FLUX2, "guidance_embeds": True}
TEMPLATE = (
    "{{ bos_token }}{% for one in messages %}{% set name = 'SYSTEM_PROMPT' if one.role == 'system' else 'INST' %}"
    "[{{ name }}]{% for part in one.content %}{{ part.text }}{% endfor %}[/{{ name }}]{% endfor %}"
)
LEFT = {"padding_side": "left", "chat_template": TEMPLATE}


def mistral(folder, cls="mistral3", **told):
    """The text encoder and the tokenizer, of transformers; `told` is of tokenizer_config.json."""
    from transformers import AutoTokenizer

    return make_seeing_lm.build(cls, 3, **MISTRAL), AutoTokenizer.from_pretrained(tiny.mistral(folder, **told))


def our_mistral(folder, cls="mistral3", **told):
    """The same, of fdiff, without parameters."""
    name, options = make_seeing_lm.CONFIGS[cls]
    config = {"text_config": {**options["text_config"], **MISTRAL}}
    tokenizer = fdiff.PreTrainedTokenizerFast.from_folder(tiny.mistral(folder, **told))
    return getattr(fdiff, name).from_config(config), tokenizer


def flux2_vae():
    """FLUX.2's autoencoder, of diffusers, with statistics that are none of a fresh model's."""
    import diffusers
    import torch

    vae = checkpoints.seeded(lambda: diffusers.AutoencoderKLFlux2(**transformers.FLUX2_VAE), 2)
    vae.bn.running_mean.copy_(torch.randn(16))
    vae.bn.running_var.copy_(torch.rand(16) / 1000)  # so small that what is added to it is seen
    return vae


def ernie_image(folder):
    """ERNIE-Image, of diffusers; the folder is for its tokenizer."""
    import diffusers

    encoder, tokenizer = mistral(folder)
    return diffusers.ErnieImagePipeline(
        make_single_stream.build_of("ErnieImageTransformer2DModel", ERNIE_IMAGE), flux2_vae(), encoder, tokenizer,
        diffusers.FlowMatchEulerDiscreteScheduler(**FIXED),
    )  # fmt: skip


def our_ernie_image(folder):
    """ERNIE-Image, of fdiff, without parameters."""
    encoder, tokenizer = our_mistral(folder)
    return fdiff.ErnieImagePipeline(
        fdiff.FlowMatchEulerDiscreteScheduler(**FIXED), fdiff.AutoencoderKLFlux2(**transformers.FLUX2_VAE), encoder,
        tokenizer, fdiff.ErnieImageTransformer2DModel(**ERNIE_IMAGE),
    )  # fmt: skip


def flux2_dev(folder):
    """FLUX.2 dev, of diffusers; the folder is for its tokenizer, which pads on the left."""
    import diffusers

    encoder, tokenizer = mistral(folder, "mistral3_with_head", **LEFT)
    return diffusers.Flux2Pipeline(
        diffusers.FlowMatchEulerDiscreteScheduler(**DYNAMIC), flux2_vae(), encoder, tokenizer,
        make_single_stream.build_of("Flux2Transformer2DModel", FLUX2),
    )  # fmt: skip


def our_flux2_dev(folder):
    """FLUX.2 dev, of fdiff, without parameters."""
    encoder, tokenizer = our_mistral(folder, "mistral3_with_head", **LEFT)
    return fdiff.Flux2Pipeline(
        fdiff.FlowMatchEulerDiscreteScheduler(**DYNAMIC), fdiff.AutoencoderKLFlux2(**transformers.FLUX2_VAE), encoder,
        tokenizer, fdiff.Flux2Transformer2DModel(**FLUX2),
    )  # fmt: skip
