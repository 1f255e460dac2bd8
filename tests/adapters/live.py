"""Tiny models of diffusers and of transformers, and the same here."""

import functools

import jax
import numpy as np
import pytest

import fdiff
from tests.adapters import tiny


@functools.cache
def compiled(model):
    """A model as a function of (params, collection "lora", its arguments)."""
    return jax.jit(lambda params, edits, *arguments: model.apply({"params": params, "lora": edits}, *arguments))


def unet(folder, **changes):
    """(diffusers' U-Net, the model, its parameters)."""
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    torch.manual_seed(0)
    theirs = diffusers.UNet2DConditionModel(**(tiny.UNET | changes))
    for name, parameter in theirs.named_parameters():
        if "norm" in name:  # which are ones and zeros at first
            parameter.data += 0.3 * torch.randn(parameter.shape)
    theirs.save_pretrained(folder / "unet")
    return theirs, *fdiff.UNet2DConditionModel.from_pretrained(folder / "unet")


def predictions(theirs, model, params, edits):
    """(diffusers', ours) of the same latents and words."""
    import torch

    rng = np.random.default_rng(0)
    x, text = rng.standard_normal((1, 8, 8, 4), np.float32), rng.standard_normal((1, 5, 12), np.float32)
    with torch.no_grad():
        out = theirs(torch.from_numpy(x).permute(0, 3, 1, 2), 7, torch.from_numpy(text)).sample
    return out.permute(0, 2, 3, 1).numpy(), compiled(model)(params, edits, x, 7, text)


def randomize(module, deviation=0.3):
    """Draw every parameter of a torch module that is trained; magnitudes stay near where they are."""
    import torch

    torch.manual_seed(1)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            noise = deviation * torch.randn(parameter.shape)
            parameter.data = parameter.data * (1 + noise) if "dora" in name or "magnitude" in name else noise


def assert_close(pair):
    """Equal to 2e-5 of the largest number."""
    theirs, ours = pair
    np.testing.assert_allclose(ours, theirs, atol=2e-5 * np.abs(theirs).max())
