"""The text side of language models that also see: Mistral 3, Qwen2.5-VL and Qwen3-VL."""

import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdiff
from convert import layout, names
from fdiff.models import Mistral3Model, Qwen2_5_VLForConditionalGeneration, Qwen3VLModel
from tests.models.compare import assert_close, read
from tests.reference import make_seeing_lm as cases


def compare(model, params, expected):
    """All that torch gives, where padding is only looked at by padding: there its ways to attend differ."""
    ids, mask = cases.INPUTS()
    run = jax.jit(lambda params, *arrays: model.apply({"params": params}, *arrays, hidden_layers=cases.LAYERS))
    for kind, arrays in (("masked", (ids, mask)), ("plain", (ids,))):
        for layer, state in zip(cases.LAYERS, run(params, *arrays), strict=True):
            wanted = expected[f"{kind} {layer}"]
            if kind == "masked":
                state, wanted = (jnp.where(mask[..., None] == 1, x, 0) for x in (state, wanted))
            assert_close(state, wanted)


@pytest.mark.parametrize("name", cases.STORED)
def test_stored_outputs(reference, name, tmp_path):
    cls = getattr(fdiff.models, cases.CONFIGS[name][0])
    model, params = cls.from_pretrained(reference / "seeing_lm" / name, dtype="float32")
    compare(model, params, read(reference / "seeing_lm" / f"{name}.npz"))
    model.save_pretrained(tmp_path, params)
    again, kept = cls.from_pretrained(tmp_path)
    assert again == model
    jax.tree.map(np.testing.assert_array_equal, kept, params)


@pytest.mark.parity
@pytest.mark.parametrize("name", cases.CONFIGS)
def test_outputs_live(name, tmp_path):
    """Of transformers' file, and of ours in transformers."""
    transformers = pytest.importorskip("transformers")
    theirs = cases.build(name)
    theirs.save_pretrained(tmp_path / "theirs")
    cls = getattr(fdiff.models, cases.CONFIGS[name][0])
    model, params = cls.from_pretrained(tmp_path / "theirs")
    compare(model, params, cases.run(theirs))
    model.save_pretrained(tmp_path / "ours", params)
    again = getattr(transformers, cases.CONFIGS[name][0]).from_pretrained(tmp_path / "ours").eval()
    compare(model, params, cases.run(again))  # which sees with random weights, and so is asked for a text alone
    text = again.config.text_config
    assert (text.model_type, text.hidden_size) == (theirs.config.text_config.model_type, 16)
    assert text.rope_parameters == theirs.config.text_config.rope_parameters


def test_places_that_count_only_what_is_there(reference):
    """With padding in the middle, the rest is as without it."""
    model, params = Qwen3VLModel.from_pretrained(reference / "seeing_lm" / "qwen3_vl", dtype="float32")
    ids = np.arange(6)[None]
    padded = np.array([[0, 1, 2, 39, 39, 3, 4, 5]])
    mask = (padded != 39).astype(int)
    (plain,) = model.apply({"params": params}, ids)
    places = np.maximum(mask.cumsum(1) - 1, 0)
    (found,) = model.apply({"params": params}, padded, mask, position_ids=places)
    np.testing.assert_allclose(found[mask == 1], plain[0], atol=1e-5)


def test_wrong_options_are_told():
    def told(match, **yarn):
        with pytest.raises(ValueError, match=match):
            Mistral3Model(num_hidden_layers=1, rope_parameters={"rope_type": "yarn", **yarn}).shapes()

    told("lack factor, which yarn needs", original_max_position_embeddings=64)
    told("factor is -1", factor=-1, original_max_position_embeddings=64)
    model = Mistral3Model(num_hidden_layers=1, rope_parameters=cases.YARN)
    with pytest.raises(ValueError, match="a text of 65 tokens is too long; 64 are the most"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros((1, 65), int)))
    with pytest.raises(ValueError, match="rope_type 'linear' is unknown to Mistral3Model"):
        Mistral3Model(rope_parameters={"rope_type": "linear"}).check_options()


@pytest.mark.parametrize(
    ("cls", "folder", "manifest", "theta"),
    [
        (Mistral3Model, "baidu/ERNIE-Image", "ernie-image-ministral3", 1e6),
        (Qwen3VLModel, "krea/Krea-2-Raw", "krea2-qwen3-vl", 5e6),
        (Qwen2_5_VLForConditionalGeneration, "Qwen/Qwen-Image", "qwen2.5-vl-7b", 1e6),
    ],
)
def test_names_and_shapes_of_real_checkpoints(shared_data, cls, folder, manifest, theta):
    """All but the part that sees, of those that do not."""
    config = json.loads((shared_data / "hub_configs" / folder / "text_encoder" / "config.json").read_text())
    model, path = cls.from_config(config), shared_data / "manifests" / f"{manifest}.json.gz"
    with gzip.open(path) as file:
        theirs = json.load(file)["tensors"]
    paths, _ = jax.tree_util.tree_flatten_with_path(model.shapes())
    ours = {tuple(entry.key for entry in path): leaf.shape for path, leaf in paths}
    found = {names.find(layout.torch_name(path), theirs): list(layout.torch_shape(path, shape))
             for path, shape in ours.items()}  # fmt: skip
    sees = getattr(model, "vision_config", None) is not None
    spare = {name for name in theirs if name == names.HEAD or (names.SIGHT.match(name) and not sees)}
    assert found == {name: shape for name, shape in theirs.items() if name not in spare}
    assert model.theta() == theta


@pytest.mark.parametrize("folder", ["Qwen/Qwen-Image", "Qwen/Qwen-Image-Edit"])
def test_names_of_the_hubs_index_files(shared_data, folder):
    """Which are others than those that transformers 5 writes."""
    folder = shared_data / "hub_configs" / folder / "text_encoder"
    model = Qwen2_5_VLForConditionalGeneration.from_config(json.loads((folder / "config.json").read_text()))
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    paths, _ = jax.tree_util.tree_flatten_with_path(model.shapes())
    found = {names.find(layout.torch_name(tuple(entry.key for entry in path)), index) for path, _ in paths}
    assert found == set(index) - {names.HEAD}
