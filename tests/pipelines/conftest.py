"""Tiny pipelines that the tests of this folder share."""

import jax
import numpy as np
import pytest

import fdiff
from tests.pipelines import checkpoints, parity


def tiny_unet(**fields):
    fields = {
        "sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": (8, 8), "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4, "attention_head_dim": 4, **fields,
    }  # fmt: skip
    return fdiff.UNet2DModel(**fields)


@pytest.fixture(scope="session")
def unconditional():
    pipe = fdiff.DDPMPipeline(tiny_unet(), fdiff.DDPMScheduler())
    return pipe, {"unet": pipe.unet.init_params(jax.random.key(0))}


@pytest.fixture(scope="session")
def conditional():
    unet = tiny_unet(num_class_embeds=4)
    pipe = fdiff.ClassConditionalPipeline(unet, fdiff.DDIMScheduler(), ("cat", "dog", "cow"))
    return pipe, {"unet": unet.init_params(jax.random.key(0))}


@pytest.fixture(scope="session")
def sd_pair(tmp_path_factory):
    """A medium Stable Diffusion: diffusers' pipeline, fdiff's of the same checkpoint, and params."""
    pytest.importorskip("diffusers")
    return parity.pair(tmp_path_factory.mktemp("sd"), checkpoints.stable_diffusion())


@pytest.fixture(scope="session")
def xl_pair(tmp_path_factory):
    """The same for a medium SDXL."""
    pytest.importorskip("diffusers")
    return parity.pair(tmp_path_factory.mktemp("xl"), checkpoints.stable_diffusion_xl())


@pytest.fixture(scope="session")
def drawn(reference):
    """What tiny pipelines of diffusers drew, by name: latents (b, h, w, c), from torch's seed 42."""
    return dict(np.load(reference / "pipelines" / "latents.npz"))


@pytest.fixture(scope="session")
def sd(reference):
    """A tiny Stable Diffusion as diffusers saved it: (pipeline, params)."""
    tokenizer = fdiff.CLIPTokenizer.from_folder(reference / "clip" / "tokenizer")
    return fdiff.DiffusionPipeline.from_pretrained(reference / "pipelines" / "sd", tokenizer=tokenizer)


@pytest.fixture(scope="session")
def xl(reference):
    """A tiny SDXL."""
    names = ("tokenizer", "tokenizer_2")
    tokenizers = {name: fdiff.CLIPTokenizer.from_folder(reference / "clip" / name) for name in names}
    return fdiff.DiffusionPipeline.from_pretrained(reference / "pipelines" / "xl", **tokenizers)
