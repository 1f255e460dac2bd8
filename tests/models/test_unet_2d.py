import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdiff.models import UNet2DModel
from tests.models.compare import assert_close, assert_names, from_torch
from tests.reference import make_unet_2d as cases

REAL = {
    "google/ddpm-cat-256": "ddpm-cat-256",
    "google/ddpm-cifar10-32": "ddpm-cifar10-32",
    "unconditional/ddpm-butterflies-128/unet": "ddpm-butterflies-128",
    "CompVis/ldm-celebahq-256/unet": "ldm-celebahq-256-unet",
}


@functools.cache
def loaded(folder):
    return UNet2DModel.from_pretrained(folder, dtype="float32")


@functools.cache
def compiled(model):
    return jax.jit(lambda params, arrays: model.apply({"params": params}, **arrays))


@pytest.fixture
def folder(reference):
    return reference / "unet_2d"


@pytest.mark.parametrize("name", cases.STORED)
def test_stored_outputs(folder, name):
    model, params = loaded(folder / name)
    output = compiled(model)(params, cases.inputs(name))
    assert_close(output, np.load(folder / f"{name}.npz")["output"])
    assert UNet2DModel.from_config(model.config()) == model


@pytest.mark.parity
@pytest.mark.parametrize("name", cases.CONFIGS)
def test_outputs_live(name):
    pytest.importorskip("diffusers")
    torch_model, arrays = cases.build(name), cases.inputs(name)
    model, params = from_torch(UNet2DModel, torch_model)
    assert_close(compiled(model)(params, arrays), cases.run(torch_model, arrays))


@pytest.mark.parametrize("config", REAL)
def test_names_and_shapes_of_real_checkpoints(shared_data, config):
    settings = json.loads((shared_data / "hub_configs" / config / "config.json").read_text())
    assert_names(UNet2DModel.from_config(settings), shared_data / "manifests" / f"{REAL[config]}.json.gz")


def test_bfloat16_stays_finite(folder):
    model, params = UNet2DModel.from_pretrained(folder / "skip", dtype="bfloat16")
    output = compiled(model)(params, cases.inputs("skip"))
    assert output.dtype == jnp.bfloat16
    assert_close(output, np.load(folder / "skip.npz")["output"], 0.1)


def test_gradients_are_finite(folder):
    model, params = loaded(folder / "attention_skip")
    arrays = cases.inputs("attention_skip")
    gradient = jax.jit(jax.grad(lambda p: jnp.square(model.apply({"params": p}, **arrays)).mean()))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path


def test_eager_is_jitted(folder):
    model, params = loaded(folder / "attention_skip")
    arrays = cases.inputs("attention_skip")
    assert_close(model.apply({"params": params}, **arrays), compiled(model)(params, arrays), 1e-5)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"down_block_types": ("DownBlock2D", "MysteryBlock2D")}, "down_block_types 'MysteryBlock2D' is unknown"),
        ({"down_block_types": ("DownBlock2D",)}, "must be equally long"),
        ({"time_embedding_type": "sundial"}, "choose from positional, fourier, learned"),
        ({"num_class_embeds": 3}, "needs class_labels"),
        ({"in_channels": 4}, "sample must be"),
        ({"block_out_channels": (8, 16, 16, 16, 16)}, "equally long"),
        ({"up_block_types": ("SkipUpBlock2D",) * 2, "out_channels": 1}, "in_channels 3 and out_channels 3"),
        ({"norm_num_groups": None}, "norm_num_groups may be null"),
        ({"norm_num_groups": 3}, "8 channels cannot be normalized in 3 groups"),
        ({"time_embedding_type": "learned"}, "needs num_train_timesteps"),
        ({"act_fn": "tanh_of_doom"}, "act_fn 'tanh_of_doom' is unknown"),
    ],
)
def test_errors_name_the_option(change, message):
    with pytest.raises(ValueError, match=message):
        model = UNet2DModel.from_config({**cases.BASE, **change})
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), 0))


def test_learned_times_may_be_whole_floats_as_plans_hold_them():
    model = UNet2DModel(
        sample_size=4, in_channels=1, out_channels=1, block_out_channels=(4,), layers_per_block=1, norm_num_groups=2,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), add_attention=False,
        time_embedding_type="learned", num_train_timesteps=1024,
    )
    params, x = model.init_params(jax.random.key(0)), jnp.ones((2, 4, 4, 1))
    whole = model.apply({"params": params}, x, jnp.array([1008, 3]))
    np.testing.assert_array_equal(model.apply({"params": params}, x, jnp.array([1007.9999, 3.0])), whole)
    assert np.abs(whole - model.apply({"params": params}, x, jnp.array([1007, 2]))).max() > 1e-4
