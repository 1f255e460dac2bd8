"""Qwen-Image-2.1's autoencoder."""

import jax
import numpy as np
import pytest

from fdiff.models import AutoencoderKLQwenImage21
from tests.models.compare import assert_close, assert_names, from_torch, read
from tests.reference import make_qwenimage21 as cases
from tests.reference.make_qwenimage21 import OPTIONS, PICTURE


def run(model, params, x, method):
    return jax.jit(lambda params, x: model.apply({"params": params}, x, method=method))(params, x)


def compare(model, params, picture, expected):
    found = run(model, params, picture, "encode")
    assert_close(found.mean, expected["mean"])
    assert_close(found.logvar, expected["logvar"])
    decoded = run(model, params, found.mean / 10, "decode")
    assert_close(decoded, expected["decoded"])
    assert 0.01 < np.abs(decoded).mean() < 0.9  # not all at the bounds


def test_stored_outputs(reference):
    folder = reference / "qwenimage21"
    model, params = AutoencoderKLQwenImage21.from_pretrained(folder / "vae", dtype="float32")
    compare(model, params, PICTURE, read(folder / "output.npz"))


@pytest.mark.parity
@pytest.mark.parametrize("more", [{}, {"decoder_base_dim": None, "dim_mult": [2, 4, 4], "in_channels": 3}])
def test_outputs_live(more, monkeypatch):
    pytest.importorskip("diffusers")
    monkeypatch.setattr(cases, "OPTIONS", {**OPTIONS, **more})
    theirs = cases.build()
    model, params = from_torch(AutoencoderKLQwenImage21, theirs)
    picture = PICTURE[..., : model.in_channels]
    compare(model, params, picture, cases.run(theirs, picture))


def test_latents_are_scaled_by_the_config():
    model = AutoencoderKLQwenImage21(**OPTIONS)
    params = model.init_params(jax.random.key(0))
    latents = run(model, params, PICTURE, "encode").mean
    scaled = run(model, params, latents, "scale")
    np.testing.assert_allclose(scaled[..., 4], (latents[..., 4] - 1) / 4, atol=1e-6)
    np.testing.assert_allclose(run(model, params, scaled, "unscale"), latents, atol=1e-5)
    assert run(model, params, latents, "decode").shape == PICTURE.shape
    assert AutoencoderKLQwenImage21.from_config(model.config()) == model


def test_wrong_options_and_inputs_are_told():
    def told(match, shape=PICTURE.shape, **options):
        with pytest.raises(ValueError, match=match):
            AutoencoderKLQwenImage21(**{**OPTIONS, **options}).apply({"params": {}}, np.zeros(shape), method="encode")

    told("is_residual must be true", is_residual=False)
    told("temperal_downsample must be one shorter than dim_mult, which has 3", temperal_downsample=(True,))
    told("latents_mean must hold a number for each channel, of which z_dim says 6", z_dim=6)
    told("3 must divide 4 times 1 for shortcuts", dim_mult=(1, 3, 3), temperal_downsample=(False, False))
    told(r"height and width multiples of 4; they are \(2, 6, 8, 4\)", (2, 6, 8, 4))


def test_names_and_shapes_of_the_defaults(shared_data):
    assert_names(AutoencoderKLQwenImage21(), shared_data / "manifests" / "qwen-image-2.1-vae.json.gz")
