import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdiff
from fdiff.models import AutoencoderDC, AutoencoderKL, AutoencoderTiny, VQModel
from fdiff.models.autoencoder_kl import KLAutoencoder
from fdiff.models.layers.vae import DiagonalGaussian
from fdiff.models.tiling import sliced, tiled, tiled_decode, tiled_encode
from tests.models.compare import assert_close, assert_names, from_torch, read
from tests.reference import make_autoencoders as cases


@functools.cache
def loaded(folder, name):
    return getattr(fdiff.models, cases.CONFIGS[name][0]).from_pretrained(folder / name, dtype="float32")


@pytest.fixture
def folder(reference):
    return reference / "autoencoders"


def compare(name, model, params, expected, width):
    """Everything that a model can do, in one compiled program, with what diffusers computed."""

    @jax.jit
    def run(params, pictures, large, indices):
        def apply(x, method, *arguments):
            return model.apply({"params": params}, x, *arguments, method=method)

        encoded = apply(pictures, "encode")
        result = {"whole": apply(pictures, "__call__")}
        if isinstance(model, KLAutoencoder):
            result |= {"mean": encoded.mean, "logvar": encoded.logvar, "kl": encoded.kl()}
            encoded = encoded.mode()
        else:
            result["mean"] = encoded
        result["decoded"] = apply(encoded, "decode")
        if "scaled" in expected:
            result["scaled"] = apply(encoded, "scale")
        if "masked" in expected:
            result["masked"] = apply(encoded, "decode", pictures, cases.mask())
        if "tiled_mean" in expected:
            posterior = tiled_encode(model, params, large)
            result |= {"tiled_mean": posterior.mean, "tiled_logvar": posterior.logvar}
            result["tiled_decoded"] = tiled_decode(model, params, posterior.mean)
        if isinstance(model, VQModel):
            quantized = apply(encoded, lambda model, h: model.quantize(h))
            result |= {"quantized": quantized.latents, "loss": quantized.loss, "numbers": quantized.indices}
        if "looked_up" in expected:
            result["looked_up"] = apply(indices, "decode", True)
        return result

    actual = run(params, cases.pictures(name), cases.large_picture(width), cases.indices(name))
    assert actual.keys() == set(expected)
    for key, value in expected.items():
        assert_close(actual[key], value)


@pytest.mark.parametrize("name", cases.STORED)
def test_stored_outputs(folder, name):
    model, params = loaded(folder, name)
    compare(name, model, params, read(folder / f"{name}.npz"), 12)
    assert type(model).from_config(model.config()) == model


@pytest.mark.parity
@pytest.mark.parametrize("name", cases.CONFIGS)
def test_outputs_live(name):
    pytest.importorskip("diffusers")
    torch_model = cases.build(name)
    model, params = from_torch(getattr(fdiff.models, cases.CONFIGS[name][0]), torch_model)
    compare(name, model, params, cases.run(name, torch_model, 20), 20)


def test_flux2_scaling_and_back(folder, tmp_path):
    model, params = loaded(folder, "flux2")
    z = np.random.default_rng(0).standard_normal((2, 4, 6, 6)).astype(np.float32)
    scaled = model.apply({"params": params}, z, method="scale")
    np.testing.assert_allclose(model.apply({"params": params}, scaled, method="unscale"), z, atol=1e-5)
    with pytest.raises(ValueError, match="Latents of 3 x 6 cannot be put together 2 x 2 at a time"):
        model.apply({"params": params}, z[:, :3], method="scale")


@pytest.mark.parity
def test_flux2_of_ours_is_read_live(folder, tmp_path):
    """Though it does not say how many batches its statistics are of."""
    diffusers, torch = pytest.importorskip("diffusers"), pytest.importorskip("torch")
    model, params = loaded(folder, "flux2")
    model.save_pretrained(tmp_path, params)
    theirs = diffusers.AutoencoderKLFlux2.from_pretrained(tmp_path)
    np.testing.assert_array_equal(theirs.bn.running_mean, params["bn"]["running_mean"])
    x = cases.pictures("flux2")
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x).permute(0, 3, 1, 2)).sample.permute(0, 2, 3, 1).numpy()
    assert_close(model.apply({"params": params}, x), expected)


def test_one_picture_and_mask_serve_all_latents(folder):
    """And what the mask leaves is what the picture is, whatever the latents."""
    model, params = loaded(folder, "asymmetric")
    x, mask = cases.pictures("asymmetric"), cases.mask()
    z = np.random.default_rng(1).standard_normal((3, 5, 6, 4)).astype(np.float32)
    decode = jax.jit(lambda z, x, mask: model.apply({"params": params}, z, x, mask, method="decode"))
    np.testing.assert_allclose(decode(z, x[:1], mask[:1])[2], decode(z[2:], x[:1], mask[:1])[0], atol=1e-5)
    kept = np.zeros_like(mask[:1])
    np.testing.assert_array_equal(decode(z, x[:1], kept)[0], decode(z, x[:1], kept)[1])
    assert model.block_out_channels == (4, 8, 16, 16)
    assert type(model).from_config({**model.config(), "block_out_channels": [1], "force_upcast": False}) == model
    with pytest.raises(ValueError, match="it needs four blocks, and a picture and a mask of the size"):
        model.apply({"params": params}, z, x[:1, :32], mask[:1, :32], method="decode")


def test_samples_of_the_distribution():
    posterior = DiagonalGaussian(jnp.full((2, 3, 4, 5), 2.0), jnp.full((2, 3, 4, 5), np.log(0.25)))
    keys = jax.random.split(jax.random.key(0), 2)
    samples = posterior.sample(keys)
    np.testing.assert_array_equal(samples[1], DiagonalGaussian(*(x[1:] for x in posterior)).sample(keys[1:])[0])
    many = DiagonalGaussian(jnp.full((1, 100, 100, 5), 2.0), jnp.full((1, 100, 100, 5), np.log(0.25)))
    drawn = many.sample(jax.random.key(1))
    assert abs(drawn.mean() - 2) < 0.01
    assert abs(drawn.std() - 0.5) < 0.01


def test_samples_in_bfloat16_are_as_fine_as_bfloat16_is():
    zeros = jnp.zeros((1, 100, 100, 5), jnp.bfloat16)
    narrow, wide = (DiagonalGaussian(z, z).sample(jax.random.key(1)) for z in (zeros, zeros.astype(jnp.float32)))
    np.testing.assert_array_equal(narrow, wide.astype(jnp.bfloat16))
    assert len(np.unique(np.asarray(narrow, np.float32))) > 1000


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scaling_factor": 0.36, "shift_factor": 0.1},
        {"scaling_factor": 0.5, "latents_mean": (1.0, 2.0, 3.0, 4.0), "latents_std": (8.0, 5.0, 6.0, 7.0)},
    ],
)
def test_scaling_and_back(options):
    model = AutoencoderKL(**options)
    z = np.random.default_rng(0).standard_normal((1, 2, 2, 4)).astype(np.float32)
    np.testing.assert_allclose(model.unscale(model.scale(z)), z, rtol=1e-5, atol=1e-6)
    mean, std = np.array(options.get("latents_mean", 0)), np.array(options.get("latents_std", 1))
    expected = (z - mean) / std - (options.get("shift_factor") or 0)
    np.testing.assert_allclose(model.scale(z), expected * model.scaling_factor, rtol=1e-5)
    for other in (AutoencoderTiny(scaling_factor=2.0), VQModel(), AutoencoderDC(scaling_factor=2.0)):
        np.testing.assert_allclose(other.unscale(other.scale(z)), z, rtol=1e-6)


def test_slices_and_tiles():
    x = np.random.default_rng(0).standard_normal((3, 9, 7, 2)).astype(np.float32)
    np.testing.assert_array_equal(sliced(lambda y: y * y, x), x * x)
    doubled = tiled(lambda y: y.repeat(2, 1).repeat(2, 2), x, 4, 8)  # a map without borders shows no tiles
    np.testing.assert_allclose(doubled, x.repeat(2, 1).repeat(2, 2), rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="tile_size 6 is too small; choose at least 8"):
        tiled_encode(AutoencoderKL(block_out_channels=(8, 8)), {}, x, 6)
    with pytest.raises(ValueError, match="tile_size 100 is too small; choose at least 128"):
        tiled_decode(AutoencoderDC(), {}, x, 100)


def test_bfloat16_stays_finite(folder):
    model, params = loaded(folder, "kl")
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    whole = jax.jit(model.apply)({"params": half}, cases.pictures("kl"))
    assert whole.dtype == jnp.bfloat16
    assert_close(whole, read(folder / "kl.npz")["whole"], 0.1)


def test_wrong_options_and_inputs_are_told():
    with pytest.raises(ValueError, match="down_block_types 'Block' is unknown"):
        AutoencoderKL(down_block_types=("Block",)).shapes()
    with pytest.raises(ValueError, match=r"Pictures must be \(batch, height, width, 3\)"):
        AutoencoderKL().apply({"params": {}}, np.zeros((1, 8, 8, 4)))
    with pytest.raises(ValueError, match=r"Latents must be \(batch, height, width, 4\)"):
        AutoencoderKL().apply({"params": {}}, np.zeros((1, 8, 8, 3)), method="decode")
    with pytest.raises(ValueError, match="norm_type 'layer' is unknown"):
        VQModel(norm_type="layer").shapes()
    with pytest.raises(ValueError, match="upsample_fn 'bicubic' is unknown"):
        AutoencoderTiny(upsample_fn="bicubic").shapes()
    assert AutoencoderTiny.from_config({"block_out_channels": [64]}) == AutoencoderTiny()


@pytest.mark.parametrize(
    ("folder", "manifest"),
    [
        ("runwayml/stable-diffusion-v1-5/vae", "sd15-vae"),
        ("stabilityai/stable-diffusion-2-1/vae", "sd21-vae"),
        ("stabilityai/stable-diffusion-xl-base-1.0/vae", "sdxl-vae"),
        ("stabilityai/stable-diffusion-3-medium-diffusers/vae", "sd3-vae"),
        ("black-forest-labs/FLUX.1-dev/vae", "flux1-vae"),
        ("cvssp/audioldm-s-full-v2/vae", "audioldm-s-full-v2-vae"),
        ("CompVis/ldm-celebahq-256/vqvae", "ldm-celebahq-256-vqvae"),
        ("black-forest-labs/FLUX.2-klein-4B/vae", "flux2-vae"),
        ("Tongyi-MAI/Z-Image-Turbo/vae", "z-image-vae"),
    ],
)
def test_names_and_shapes_of_real_checkpoints(shared_data, folder, manifest):
    config = json.loads((shared_data / "hub_configs" / folder / "config.json").read_text())
    model = getattr(fdiff.models, config["_class_name"]).from_config(config)
    assert_names(model, shared_data / "manifests" / f"{manifest}.json.gz", {"bn.num_batches_tracked"})
