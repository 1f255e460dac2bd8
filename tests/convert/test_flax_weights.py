"""Hugging Face's own Flax weights, as flax.serialization writes them."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization

import fdiff
from convert import flax_weights
from fdiff.conversion import convert
from tests.convert.test_single_file import TINY_TEXT, TINY_UNET, TINY_VAE, equal

OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def as_flax_had_it(tree, model):
    """The tree that diffusers' and transformers' Flax classes had: resnets_0 for resnets.0, every level a dict."""
    found = {}
    for entries, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        path = ".".join(entry.key for entry in entries)
        if model == "vae":  # which kept the first names of attention
            for new, old in OLD_ATTENTION.items():
                path = path.replace(f".{new}.", f".{old}.")
        if model != "text_encoder":
            path = re.sub(r"\.(\d+)", r"_\1", path)
        place = found
        *modules, last = path.split(".")
        for module in modules:
            place = place.setdefault(module, {})
        place[last] = leaf
    return found


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory, reference):
    """(a folder as the Flax pipelines were saved, modules, params)."""
    folder = tmp_path_factory.mktemp("flax")
    built = {
        "unet": fdiff.UNet2DConditionModel.from_config(TINY_UNET),
        "vae": fdiff.AutoencoderKL.from_config(TINY_VAE),
        "text_encoder": fdiff.CLIPTextModel.from_config(TINY_TEXT),
    }
    rng = np.random.default_rng(0)
    params = {
        name: jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape), jnp.bfloat16), model.shapes())
        for name, model in built.items()
    }
    for name, model in built.items():
        (folder / name).mkdir()
        file = folder / name / flax_weights.NAMES[name == "text_encoder"]
        file.write_bytes(serialization.to_bytes(as_flax_had_it(params[name], name)))
        config = model.config()
        if name != "text_encoder":
            config |= {"_class_name": "Flax" + type(model).__name__, "dtype": "float32"}
        (folder / name / "config.json").write_text(json.dumps(config))
    (folder / "scheduler").mkdir()
    scheduler = {"_class_name": "FlaxDDIMScheduler", "beta_end": 0.012, "dtype": "float32"}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    (folder / "tokenizer").symlink_to(reference / "clip" / "tokenizer")
    index = {"_class_name": "FlaxStableDiffusionPipeline", "safety_checker": [None, None]}
    index |= {"scheduler": ["diffusers", "FlaxDDIMScheduler"], "tokenizer": ["transformers", "CLIPTokenizer"]}
    index |= {"unet": ["diffusers", "FlaxUNet2DConditionModel"], "vae": ["diffusers", "FlaxAutoencoderKL"]}
    index |= {"text_encoder": ["transformers", "FlaxCLIPTextModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder, built, params


def test_names_and_layouts(pipeline):
    folder, _, params = pipeline
    found = flax_weights.tensors(folder / "unet" / "diffusion_flax_model.msgpack")
    tree = params["unet"]
    block = tree["down_blocks.0"]["attentions.0"]["transformer_blocks.0"]
    np.testing.assert_array_equal(
        found["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.weight"].read(),
        block["attn1"]["to_out.0"]["kernel"].T,
    )
    np.testing.assert_array_equal(
        found["down_blocks.0.resnets.1.conv1.weight"].read(),
        tree["down_blocks.0"]["resnets.1"]["conv1"]["kernel"].transpose(3, 2, 0, 1),
    )
    assert "time_embedding.linear_1.weight" in found
    assert found["conv_norm_out.weight"].shape == (8,)


def test_a_pipeline(pipeline, tmp_path):
    folder, built, params = pipeline
    convert(folder, tmp_path / "out")
    for name, model in built.items():
        found, tree = type(model).from_pretrained(tmp_path / "out", subfolder=name)
        assert found == model
        assert equal(tree, params[name])
    index = json.loads((tmp_path / "out" / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert index["unet"][1] == "UNet2DConditionModel"
    assert index["text_encoder"][1] == "CLIPTextModel"
    assert fdiff.DDIMScheduler.from_pretrained(tmp_path / "out", subfolder="scheduler").beta_end == 0.012
    assert (tmp_path / "out" / "tokenizer" / "vocab.json").is_file()


def test_one_model(pipeline, tmp_path):
    folder, built, params = pipeline
    convert(folder / "text_encoder" / "flax_model.msgpack", tmp_path / "text", dtype="float32")
    model, tree = fdiff.CLIPTextModel.from_pretrained(tmp_path / "text")
    assert model == built["text_encoder"]
    assert equal(tree, jax.tree.map(lambda x: x.astype(jnp.float32), params["text_encoder"]))
    with pytest.raises(FileNotFoundError, match=r"has no model_index\.json"):
        convert(folder / "tokenizer", tmp_path / "none")


def test_damaged_files(pipeline, tmp_path):
    folder, *_ = pipeline
    data = (folder / "vae" / "diffusion_flax_model.msgpack").read_bytes()
    file = tmp_path / "x.msgpack"
    rng = np.random.default_rng(0)
    cut = [data[: int(n)] for n in rng.integers(0, len(data) - 1, 50)]
    twice = b"\x82" + 2 * serialization.to_bytes({"a": np.zeros(1)})[1:]
    for broken in [b"", b"\xc1", twice, data + b"\x00", b"\x81" * 5000, serialization.to_bytes({"a": 1.5}), *cut]:
        file.write_bytes(broken)
        with pytest.raises(ValueError, match="no weights file of Flax, or is damaged"):
            flax_weights.tensors(file)


def test_arrays_of_every_kind(tmp_path):
    tree = {"a": {"kernel": np.arange(24, dtype=np.float16).reshape(1, 2, 3, 4)}, "b": {"bias": np.zeros((), np.int32)}}
    tree |= {"long" * 20: {"scale": np.ones(70000, np.float32)}}
    tree |= {"n_0": {str(i): {"bias": np.ones(i)} for i in range(20)}}
    file = tmp_path / "x.msgpack"
    file.write_bytes(serialization.to_bytes(tree))
    found = flax_weights.tensors(file)
    np.testing.assert_array_equal(found["a.weight"].read(), tree["a"]["kernel"].transpose(3, 2, 0, 1))
    assert found["b.bias"].read() == 0
    assert found["long" * 20 + ".weight"].read().sum() == 70000
    assert found["n.0.19.bias"].read().sum() == 19
