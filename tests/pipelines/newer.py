"""Tiny pipelines of the transformers of 2026: of fdiff, and of diffusers with random weights."""

import fdiff
from tests.pipelines import checkpoints, transformers
from tests.reference import make_seeing_lm, make_single_stream
from tests.tokenizers import tiny

MISTRAL = {"vocab_size": len(tiny.MISTRAL) + len(tiny.pieces()) - len(tiny.ADDED), "hidden_size": 10}
ERNIE_IMAGE = {**make_single_stream.ERNIE_IMAGE, "in_channels": 16, "out_channels": 16, "text_in_dim": 10}
FIXED = {"shift": 3.0}


def mistral(folder, cls="mistral3"):
    """The text encoder and the tokenizer, of transformers."""
    from transformers import AutoTokenizer

    return make_seeing_lm.build(cls, 3, **MISTRAL), AutoTokenizer.from_pretrained(tiny.mistral(folder))


def our_mistral(folder, cls="mistral3"):
    """The same, of fdiff, without parameters."""
    name, options = make_seeing_lm.CONFIGS[cls]
    config = {"text_config": {**options["text_config"], **MISTRAL}}
    return getattr(fdiff, name).from_config(config), fdiff.PreTrainedTokenizerFast.from_folder(tiny.mistral(folder))


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
