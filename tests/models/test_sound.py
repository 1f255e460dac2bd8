"""The models of sound, beside diffusers and transformers."""

import json

import jax
import numpy as np
import pytest

import fdiff
from convert import layout
from fdiff.models.layers.oobleck import squared_sine
from fdiff.models.layers.unet_1d_blocks import CUBIC
from fdiff.models.tiling import decode_in_parts
from tests.models.compare import assert_close, assert_names, read
from tests.reference import make_sound as cases


def model_of(name):
    """The model, with weights that its names draw."""
    case = cases.CASES[name]
    model = getattr(fdiff.models, case.name).from_config(case.options)

    def one(path, leaf):
        path = tuple(entry.key for entry in path)
        key = layout.torch_name(path)
        if key.endswith(".kernel"):
            return np.float32(CUBIC) * (2 if "up." in key else 1)
        return layout.from_torch(path, cases.weight(key, layout.torch_shape(path, leaf.shape)))

    return model, jax.tree_util.tree_map_with_path(one, model.shapes())


def compare(name, model, params, expected):
    case = cases.CASES[name]
    method = None if case.method == "__call__" else case.method
    run = jax.jit(lambda params, arrays: model.apply({"params": params}, **arrays, method=method))
    for ours, theirs in zip(jax.tree.leaves(run(params, case.inputs())), expected, strict=True):
        assert_close(np.asarray(ours, np.float32), theirs)


@pytest.mark.parametrize("name", cases.CASES)
def test_stored_outputs(reference, name):
    model, params = model_of(name)
    compare(name, model, params, read(reference / "sound" / f"{name}.npz").values())
    assert type(model).from_config(model.config()) == model


@pytest.mark.parity
@pytest.mark.parametrize("name", cases.CASES)
def test_files_live(name, tmp_path):
    """Of diffusers' file, and of ours in diffusers."""
    theirs = cases.build(name)
    theirs.save_pretrained(tmp_path / "theirs")
    model, params = getattr(fdiff.models, cases.CASES[name].name).from_pretrained(tmp_path / "theirs")
    wanted = cases.run(name, theirs)
    compare(name, model, params, wanted)
    model.save_pretrained(tmp_path / "ours", params)
    again = type(theirs).from_pretrained(tmp_path / "ours").eval()
    for one, other in zip(cases.run(name, again), wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_sounds_in_parts_are_those_at_once():
    model, params = model_of("oobleck_decode")
    assert model.reach == 20
    latents = cases.normal(1, 120, 4)
    decode = jax.jit(lambda latents: model.apply({"params": params}, latents, method="decode"))
    whole = decode(latents)
    parts = jax.jit(lambda latents: decode_in_parts(model, params, latents, 47))(latents)
    np.testing.assert_allclose(parts, whole, atol=1e-5 * np.abs(whole).max())
    other = latents.copy()
    other[:, 60] += 1
    changed = np.abs(decode(other) - whole).reshape(120, -1).max(1) > 0
    heard = np.abs(np.flatnonzero(changed) - 60).max()
    assert model.reach - 2 <= heard <= model.reach, "so far a latent is heard"
    with pytest.raises(ValueError, match="parts of 40 latents are too small; choose at least 41"):
        decode_in_parts(model, params, latents, 40)


def test_the_width_of_the_time_is_read_from_the_weights(tmp_path):
    """Checkpoints of Dance Diffusion do not say it, and diffusers since 0.36 takes another one."""
    stored, params = model_of("dance")
    stored.save_pretrained(tmp_path, params)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("time_embedding_dim") == 16
    (tmp_path / "config.json").write_text(json.dumps(config))
    model, again = fdiff.UNet1DModel.from_pretrained(tmp_path)
    assert model == stored
    jax.tree.map(np.testing.assert_array_equal, params, again)


def test_a_squared_sine_is_right_far_from_zero_too():
    x = np.concatenate([np.linspace(-10, 10, 2001), np.linspace(-3000, 3000, 501)]).astype(np.float32)
    np.testing.assert_allclose(squared_sine(x), np.sin(x.astype(np.float64)) ** 2, atol=3e-7)


WRONG = [
    ({"extra_in_channels": 6, "time_embedding_dim": 16}, "extra_in_channels 6 must be 16"),
    ({"extra_in_channels": 16, "out_channels": 8, "up_block_types": ("UpBlock1D",)}, "one shorter, or empty"),
    ({"use_timestep_embedding": True}, "use_timestep_embedding needs act_fn"),
    ({"out_block_type": "OutConv1DBlock"}, "OutConv1DBlock needs act_fn"),
    ({"mid_block_type": "MidResTemporalBlock1D"}, "MidResTemporalBlock1D needs use_timestep_embedding true"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_wrong_options_of_a_unet_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        fdiff.UNet1DModel.from_config(options)


def test_wrong_lengths_are_told():
    model = fdiff.UNet1DModel(extra_in_channels=16)
    with pytest.raises(ValueError, match=r"sample must be \(batch, length, 2\), the length a multiple of 8"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros((1, 12, 2)), 0.5))


MANIFESTS = [
    ("stabilityai/stable-audio-open-1.0/vae", "stable-audio-open-oobleck"),
    ("stabilityai/stable-audio-open-1.0/transformer", "stable-audio-open-dit"),
    ("cvssp/audioldm-s-full-v2/vocoder", "audioldm-vocoder-hifigan"),
    (fdiff.AceStepTransformer1DModel, "ace-step-transformer"),  # whose config the Hub does not have: the defaults
    (fdiff.AceStepConditionEncoder, "ace-step-condition-encoder"),
]


@pytest.mark.parametrize(("folder", "manifest"), MANIFESTS)
def test_names_and_shapes_of_real_checkpoints(shared_data, folder, manifest):
    if isinstance(folder, str):
        config = json.loads((shared_data / "hub_configs" / folder / "config.json").read_text())
        model = getattr(fdiff.models, config.get("_class_name") or config["architectures"][0]).from_config(config)
    else:
        model = folder()
    assert_names(model, shared_data / "manifests" / f"{manifest}.json.gz")
