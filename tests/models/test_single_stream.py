"""Diffusion transformers of one stream: ERNIE-Image, Krea 2, Lumina 2, FLUX.3, Qwen-Image-2.1."""

import json

import jax
import numpy as np
import pytest

import fdiff
from tests.models.compare import assert_close, assert_names, from_torch, read
from tests.reference import make_single_stream as cases


def output_of(model, params, arrays):
    static = {"kept_at": cases.KEPT_AT} if "kept" in arrays else {}
    return jax.jit(lambda params, arrays: model.apply({"params": params}, **arrays, **static))(params, arrays)


@pytest.mark.parametrize("name", cases.STORED)
def test_stored_outputs(reference, name):
    cls = getattr(fdiff.models, cases.CONFIGS[name][0])
    model, params = cls.from_pretrained(reference / "single_stream" / name, dtype="float32")
    wanted = read(reference / "single_stream" / f"{name}.npz")["output"]
    assert_close(output_of(model, params, cases.inputs(name)), wanted)
    assert cls.from_config(model.config()) == model


@pytest.mark.parity
@pytest.mark.parametrize("name", cases.CONFIGS)
def test_outputs_live(name):
    pytest.importorskip("diffusers")
    torch_model = cases.build(name)
    model, params = from_torch(getattr(fdiff.models, cases.CONFIGS[name][0]), torch_model)
    arrays = cases.inputs(name)
    assert_close(output_of(model, params, arrays), cases.run(name, torch_model, arrays))


def test_a_text_of_flux3_is_the_same_whatever_lies_behind_it():
    model = fdiff.Flux3Transformer2DModel(**cases.FLUX3)
    arrays = cases.inputs("flux3")
    params = model.init_params(jax.random.key(0))
    mask = np.array([[1] * 5 + [0] * 2] * 2)
    masked = output_of(model, params, {**arrays, "encoder_attention_mask": mask})
    arrays["encoder_hidden_states"], arrays["txt_ids"] = arrays["encoder_hidden_states"][:, :5], arrays["txt_ids"][:5]
    np.testing.assert_allclose(masked, output_of(model, params, arrays), atol=1e-5)


@pytest.mark.parametrize("name", ["ernie_image", "krea2"])  # Qwen-Image-2.1 counts what is none, too
def test_a_text_is_the_same_whatever_lies_behind_it(reference, name):
    """Cut where it ends, or told by a mask."""
    cls = getattr(fdiff.models, cases.CONFIGS[name][0])
    model, params = cls.from_pretrained(reference / "single_stream" / name, dtype="float32")
    arrays = cases.inputs(name)
    ids = {key: arrays.pop(key) for key in ("img_ids", "txt_ids") if key in arrays}
    arrays = {key: array[:1] for key, array in arrays.items()}
    masked = output_of(model, params, arrays | ids)
    del arrays["encoder_attention_mask"]
    arrays["encoder_hidden_states"] = arrays["encoder_hidden_states"][:, :5]
    ids |= {"txt_ids": ids["txt_ids"][:5]} if ids else {}
    np.testing.assert_allclose(masked, output_of(model, params, arrays | ids), atol=1e-5)


def refused(match, name, changes=(), **options):
    cls = getattr(fdiff.models, cases.CONFIGS[name][0])
    with pytest.raises(ValueError, match=match):
        model = cls(**{**cases.CONFIGS[name][1], **options})
        jax.eval_shape(lambda: model.init(jax.random.key(0), **{**cases.inputs(name), **dict(changes)}))


def test_wrong_options_and_inputs_of_ernie_image_are_told():
    refused("qk_layernorm must be true", "ernie_image", qk_layernorm=False)
    refused(r"rope_axes_dim \(2, 4, 2\) must add up to 20 / 2", "ernie_image", rope_axes_dim=(2, 4, 2))
    refused(r"must be \(batch, height, width, 6\), height and width multiples of 2", "ernie_image_patches",
            {"sample": np.zeros((2, 5, 8, 6))})  # fmt: skip
    refused(r"must be \(batch, number, 12\)", "ernie_image", {"encoder_hidden_states": np.zeros((2, 7, 10))})


def test_wrong_options_and_inputs_of_krea2_are_told():
    refused(r"axes_dims_rope \(2, 2, 2\) must add up to attention_head_dim, 10", "krea2", axes_dims_rope=(2, 2, 2))
    refused("num_key_value_heads 3 must divide num_attention_heads 4", "krea2", num_key_value_heads=3)
    refused(r"must be \(batch, number, 3, 12\)", "krea2", {"encoder_hidden_states": np.zeros((2, 7, 2, 12))})
    refused(r"hidden_states must be \(batch, number, 6\), with ids", "krea2", {"img_ids": np.zeros((12, 4))})


def test_wrong_options_and_inputs_of_lumina2_are_told():
    refused(r"axes_dim_rope \(2, 4, 2\) must add up to hidden_size / heads, 24 / 4", "lumina2", axes_dim_rope=(2, 4, 2))
    refused(r"axes_dim_rope \(1, 1, 4\) must be even", "lumina2", axes_dim_rope=(1, 1, 4))
    refused("num_kv_heads 3 must divide num_attention_heads 4", "lumina2", num_kv_heads=3)
    refused(r"must be \(batch, height, width, 3\), height and width multiples of 2", "lumina2",
            {"sample": np.zeros((2, 5, 8, 3))})  # fmt: skip
    refused(r"must be \(batch, number, 12\)", "lumina2", {"encoder_hidden_states": np.zeros((2, 7, 10))})
    refused("A text of 7 tokens with latents of 6 x 8 is too large for axes_lens", "lumina2", axes_lens=(7, 8, 8))
    refused("latents of 6 x 8 is too large for axes_lens", "lumina2", axes_lens=(8, 8, 3))


def test_wrong_options_and_inputs_of_flux3_are_told():
    refused("takes no target_timestep; see flow_map", "flux3", {"target_timestep": 0.5})
    refused("needs target_timestep; see flow_map", "flux3_kept", {"target_timestep": None})
    refused("image_cond_ids go together", "flux3_kept", {"image_cond_ids": None})
    refused(r"image_cond_hidden_states must be \(batch, number, 5\)", "flux3_kept",
            {"image_cond_hidden_states": np.zeros((2, 6, 4))})  # fmt: skip


def test_wrong_options_and_inputs_of_qwenimage21_are_told():
    refused("patch_size must be 1", "qwenimage21", patch_size=2)
    refused(r"axes_dims_rope \(2, 2, 2\) must add up to attention_head_", "qwenimage21", axes_dims_rope=(2, 2, 2))
    refused(r"sample must be \(batch, height, width, 6\)", "qwenimage21", {"sample": np.zeros((2, 4, 6, 5))})
    refused(r"must be \(batch, number, 12\)", "qwenimage21", {"encoder_hidden_states": np.zeros((2, 7, 10))})
    for kept_at in ((), (1,), (1, 2), (1, 7)):
        refused("kept_at must say where 4 latents a token stand", "qwenimage21_kept", {"kept_at": kept_at})


@pytest.mark.parametrize(
    ("cls", "folder", "manifest"),
    [
        ("ErnieImageTransformer2DModel", "baidu/ERNIE-Image/transformer", "ernie-image-transformer"),
        ("Krea2Transformer2DModel", "krea/Krea-2-Raw/transformer", "krea2-transformer"),
        ("Lumina2Transformer2DModel", "neta-art/Neta-Lumina/transformer", "neta-lumina2-transformer"),
        ("Flux3Transformer2DModel", None, "flux3-transformer"),
        ("QwenImage21Transformer2DModel", None, "qwen-image-2.1-transformer"),
    ],
)
def test_names_and_shapes_of_real_checkpoints(shared_data, cls, folder, manifest):
    """Of the last two there is no config, but the defaults are theirs."""
    model = getattr(fdiff.models, cls)()
    if folder is not None:
        model = type(model).from_config(json.loads((shared_data / "hub_configs" / folder / "config.json").read_text()))
    assert_names(model, shared_data / "manifests" / f"{manifest}.json.gz")
