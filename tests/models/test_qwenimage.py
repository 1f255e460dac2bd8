"""Qwen-Image's transformer, and the autoencoder that it has of Wan."""

import json

import jax
import numpy as np
import pytest

from convert import layout
from fdiff.models import QwenImageTransformer2DModel
from tests.models.compare import assert_close, assert_names, from_torch, read
from tests.reference import make_qwenimage as cases

LAYERED = {"use_additional_t_cond": True}


def output_of(model, params, arrays):
    return jax.jit(lambda params, arrays: model.apply({"params": params}, **arrays))(params, arrays)


def test_stored_outputs(reference):
    folder = reference / "qwenimage"
    model, params = QwenImageTransformer2DModel.from_pretrained(folder / "kept_still", dtype="float32")
    assert_close(output_of(model, params, cases.inputs("kept_still")), read(folder / "kept_still.npz")["output"])
    assert QwenImageTransformer2DModel.from_config(model.config()) == model


@pytest.mark.parity
@pytest.mark.parametrize("name", cases.TRANSFORMERS)
def test_outputs_live(name):
    pytest.importorskip("diffusers")
    torch_model = cases.build(name)
    model, params = from_torch(QwenImageTransformer2DModel, torch_model)
    arrays = cases.inputs(name)
    assert_close(output_of(model, params, arrays), cases.run(torch_model, arrays))


def test_a_text_is_the_same_whatever_lies_behind_it(reference):
    model, params = QwenImageTransformer2DModel.from_pretrained(reference / "qwenimage/kept_still", dtype="float32")
    arrays = jax.tree.map(lambda array: array[:1], cases.inputs("kept_still"))
    masked = output_of(model, params, arrays)
    arrays["encoder_hidden_states"] = arrays["encoder_hidden_states"][:, :5]
    del arrays["encoder_hidden_states_mask"]
    np.testing.assert_allclose(masked, output_of(model, params, arrays), atol=1e-5)


def test_wrong_options_and_inputs_are_told():
    def told(match, changes=(), **options):
        with pytest.raises(ValueError, match=match):
            model = QwenImageTransformer2DModel(**{**cases.TRANSFORMER, **options})
            arrays = {**cases.inputs("kept"), **dict(changes)}
            jax.eval_shape(lambda: model.init(jax.random.key(0), **arrays))

    told(r"axes_dims_rope \(2, 2, 2\) must add up to attention_head_dim, 10", axes_dims_rope=(2, 2, 2))
    told(r"axes_dims_rope \(2, 3, 5\) must be even", axes_dims_rope=(2, 3, 5))
    told("guidance_embeds must be false", guidance_embeds=True)
    told(r"sample must be \(batch, height, width, 8\)", {"sample": np.zeros((2, 12, 8))})
    told(r"kept must be \(batch, height, width, 8\)", {"kept": [np.zeros((2, 4, 4, 6))]})
    told(r"encoder_hidden_states must be \(batch, number, 12\)", {"encoder_hidden_states": np.zeros((2, 7, 10))})
    told("takes no additional_t_cond", {"additional_t_cond": np.zeros(2, int)})
    told("needs additional_t_cond", **LAYERED)


@pytest.mark.parametrize(
    ("folder", "manifest"),
    [("Qwen-Image", "qwen-image-transformer"), ("Qwen-Image-Edit", "qwen-image-edit-transformer")],
)
def test_names_and_shapes_of_real_checkpoints(shared_data, folder, manifest):
    folder = shared_data / "hub_configs" / "Qwen" / folder / "transformer"
    model = QwenImageTransformer2DModel.from_config(json.loads((folder / "config.json").read_text()))
    assert_names(model, shared_data / "manifests" / f"{manifest}.json.gz")
    paths, _ = jax.tree_util.tree_flatten_with_path(model.shapes())
    names = {layout.torch_name(tuple(entry.key for entry in path)) for path, _ in paths}
    index = json.loads((folder / "diffusion_pytorch_model.safetensors.index.json").read_text())
    assert names == set(index["weight_map"])
