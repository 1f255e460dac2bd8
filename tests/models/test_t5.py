import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import fdiff
from convert import layout, weights
from fdiff.models import T5EncoderModel, UMT5EncoderModel
from fdiff.models.layers.t5 import relative_buckets
from tests.models.compare import assert_close, assert_names, read
from tests.reference import make_t5 as cases


def compare(model, params, expected):
    ids, mask = cases.inputs()
    run = jax.jit(lambda params, *arrays: model.apply({"params": params}, *arrays))
    assert_close(run(params, ids, mask), expected["masked"])
    assert_close(run(params, ids), expected["plain"])


@pytest.mark.parametrize("name", cases.STORED)
def test_stored_outputs(reference, name):
    cls = getattr(fdiff.models, cases.CONFIGS[name][0])
    model, params = cls.from_pretrained(reference / "t5" / name, dtype="float32")
    compare(model, params, read(reference / "t5" / f"{name}.npz"))
    assert cls.from_config(model.config()) == model


@pytest.mark.parity
@pytest.mark.parametrize("name", cases.CONFIGS)
def test_outputs_live(name, tmp_path):
    """Of diffusers' file, and of ours in diffusers."""
    transformers = pytest.importorskip("transformers")
    theirs = cases.build(name)
    theirs.save_pretrained(tmp_path / "theirs")
    cls = getattr(fdiff.models, cases.CONFIGS[name][0])
    model, params = cls.from_pretrained(tmp_path / "theirs")
    compare(model, params, cases.run(theirs))
    model.save_pretrained(tmp_path / "ours", params)
    again = getattr(transformers, cases.CONFIGS[name][0]).from_pretrained(tmp_path / "ours").eval()
    compare(model, params, cases.run(again))


def test_what_is_padded_does_not_change_the_rest(reference):
    model, params = T5EncoderModel.from_pretrained(reference / "t5" / "t5", dtype="float32")
    ids, mask = cases.inputs()
    short = model.apply({"params": params}, ids[1:, :101])
    np.testing.assert_allclose(model.apply({"params": params}, ids[1:], mask[1:])[:, :101], short, atol=1e-4)


def test_half_precision_stays_finite(reference):
    """Sums that float16 does not hold are float32."""
    model, params = T5EncoderModel.from_pretrained(reference / "t5" / "t5", dtype="float16")
    params["encoder.block.0"]["layer.1.DenseReluDense.wo"]["kernel"] *= 3e4
    whole = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    outputs = [model.apply({"params": tree}, cases.inputs()[0]) for tree in (params, whole)]
    assert outputs[0].dtype == jnp.float16
    assert_close(outputs[0], outputs[1], 0.02)


def test_shared_tables_are_read_under_either_name_or_both(reference, tmp_path):
    model, params = T5EncoderModel.from_pretrained(reference / "t5" / "t5", dtype="float32")
    tensors = load_file(reference / "t5" / "t5" / "model.safetensors")
    table = tensors.pop("shared.weight")
    for held in (["encoder.embed_tokens.weight"], ["encoder.embed_tokens.weight", "shared.weight"]):
        save_file({**tensors, **dict.fromkeys(held, table)}, tmp_path / "model.safetensors")
        loaded = weights.load(tmp_path / "model.safetensors", model.shapes(), dtype="float32")
        assert jax.tree.all(jax.tree.map(np.array_equal, loaded, params))


@pytest.mark.parity
@pytest.mark.parametrize("sizes", [(32, 128), (12, 20), (64, 256)])
def test_buckets_live(sizes):
    torch = pytest.importorskip("torch")
    from transformers.models.t5.modeling_t5 import T5Attention

    places = torch.arange(700)
    distances = places[None] - places[:, None]
    expected = T5Attention._relative_position_bucket(distances, True, *sizes)
    np.testing.assert_array_equal(relative_buckets(700, *sizes), expected.numpy())


def test_wrong_options_are_told():
    with pytest.raises(ValueError, match="feed_forward_proj 'open-gelu' is unknown"):
        T5EncoderModel(feed_forward_proj="open-gelu").shapes()


TWO_KEYS = [
    ({"is_gated_act": True, "dense_act_fn": "gelu_pytorch_tanh"}, "gated-gelu_pytorch_tanh"),
    ({"is_gated_act": True}, "gated-relu"),
    ({"dense_act_fn": "silu", "feed_forward_proj": "gated-gelu"}, "gated-silu"),
    ({"is_gated_act": False, "feed_forward_proj": "gated-gelu"}, "gelu_new"),
    ({"is_gated_act": True, "dense_act_fn": "gelu_new", "feed_forward_proj": "gated-gelu"}, "gated-gelu_new"),
]


@pytest.mark.parametrize(("keys", "word"), TWO_KEYS)
def test_a_feed_forward_is_told_by_two_keys_too(keys, word):
    assert T5EncoderModel.from_config(keys).feed_forward_proj == word


@pytest.mark.parity
@pytest.mark.parametrize(("keys", "word"), TWO_KEYS)
def test_two_keys_live(keys, word):
    transformers = pytest.importorskip("transformers")
    ours = T5EncoderModel.from_config(keys).feed_forward_proj
    gated, _, act_fn = ours.rpartition("-")
    theirs = transformers.T5Config(**keys)
    assert (theirs.is_gated_act, theirs.dense_act_fn) == (bool(gated), act_fn)


def test_a_gated_gelu_that_one_word_cannot_say_is_refused():
    with pytest.raises(ValueError, match="sets dense_act_fn to 'gelu' with is_gated_act; set it to 'gelu_new'"):
        T5EncoderModel.from_config({"is_gated_act": True, "dense_act_fn": "gelu"})


@pytest.mark.parametrize(
    ("cls", "folder", "manifest"),
    [
        (T5EncoderModel, "stabilityai/stable-diffusion-3-medium-diffusers/text_encoder_3", "t5-xxl-encoder"),
        (T5EncoderModel, "black-forest-labs/FLUX.1-dev/text_encoder_2", "t5-xxl-encoder"),
        (UMT5EncoderModel, "Wan-AI/Wan2.1-T2V-1.3B-Diffusers/text_encoder", "umt5-xxl-encoder"),
    ],
)
def test_names_and_shapes_of_real_checkpoints(shared_data, cls, folder, manifest):
    model = cls.from_config(json.loads((shared_data / "hub_configs" / folder / "config.json").read_text()))
    assert_names(model, shared_data / "manifests" / f"{manifest}.json.gz", {"encoder.embed_tokens.weight"})
    index = json.loads((shared_data / "hub_configs" / folder / "model.safetensors.index.json").read_text())
    leaves, _ = jax.tree_util.tree_flatten_with_path(model.shapes())
    names = {layout.torch_name(tuple(entry.key for entry in path)) for path, _ in leaves}
    assert names == set(index["weight_map"])
