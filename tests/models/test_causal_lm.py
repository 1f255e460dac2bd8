import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import fdiff
from convert import layout
from fdiff import registry
from fdiff.models import Gemma2Model, Qwen3ForCausalLM
from tests.models.compare import assert_close, assert_names, read
from tests.reference import make_causal_lm as cases


def compare(model, params, expected):
    """All that torch gives, where padding is only looked at by padding: there its ways to attend differ."""
    ids, mask = cases.inputs()
    run = jax.jit(lambda params, *arrays: model.apply({"params": params}, *arrays, hidden_layers=cases.LAYERS))
    for kind, arrays in (("masked", (ids, mask)), ("plain", (ids,))):
        for layer, state in zip(cases.LAYERS, run(params, *arrays), strict=True):
            wanted = expected[f"{kind} {layer}"]
            if kind == "masked" and isinstance(model, Gemma2Model):
                state, wanted = (jnp.where(mask[..., None] == 1, x, 0) for x in (state, wanted))
            assert_close(state, wanted)


@pytest.mark.parametrize("name", cases.STORED)
def test_stored_outputs(reference, name):
    cls = getattr(fdiff.models, cases.CONFIGS[name][0])
    model, params = cls.from_pretrained(reference / "causal_lm" / name, dtype="float32")
    compare(model, params, read(reference / "causal_lm" / f"{name}.npz"))
    assert cls.from_config(model.config()) == model


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
    compare(model, params, cases.run(again))


def test_a_file_of_what_lies_below_the_head_has_shorter_names(reference, tmp_path):
    """As transformers writes a Qwen3Model, under which name an index may list either."""
    folder = reference / "causal_lm" / "qwen3"
    shutil.copy(folder / "config.json", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    save_file({name.removeprefix("model."): array for name, array in tensors.items()}, tmp_path / "model.safetensors")
    assert issubclass(registry.find_component("Qwen3Model", tmp_path), Qwen3ForCausalLM)
    ours, short = (Qwen3ForCausalLM.from_pretrained(place)[1] for place in (folder, tmp_path))
    jax.tree.map(np.testing.assert_array_equal, ours, short)


def test_layers_above_those_asked_for_are_not_run(reference):
    """Nor is the norm; the parameters of a model without them do."""
    model, params = Qwen3ForCausalLM.from_pretrained(reference / "causal_lm" / "qwen3", dtype="float32")
    ids, _ = cases.inputs()
    below = {name: tree for name, tree in params.items() if name not in ("model.norm", "model.layers.2")}
    (state,) = model.apply({"params": below}, ids, hidden_layers=(-2,))
    np.testing.assert_array_equal(state, model.apply({"params": params}, ids, hidden_layers=(0, 2))[1])


def test_what_is_padded_does_not_change_the_rest(reference):
    model, params = Qwen3ForCausalLM.from_pretrained(reference / "causal_lm" / "qwen3", dtype="float32")
    ids, mask = cases.inputs()
    (padded,) = model.apply({"params": params}, ids, mask)
    (alone,) = model.apply({"params": params}, ids[2:, 3:])  # turned by less, as all of it is
    np.testing.assert_allclose(padded[2:, 3:], alone, atol=1e-5)
    assert np.isfinite(padded).all()


def test_wrong_options_are_told():
    def told(match, **options):
        with pytest.raises(ValueError, match=match):
            Qwen3ForCausalLM(num_hidden_layers=2, **options).shapes()

    told("layer_types must be 2 times", layer_types=("full_attention",))
    told("layer_types must be 2 times", layer_types=("full_attention", "chunked_attention"))
    told("rope_type 'yarn' is unknown to Qwen3ForCausalLM", rope_scaling={"type": "yarn", "factor": 4})
    with pytest.raises(ValueError, match="hidden_layers 3 is not there; choose from 0 to 2, or -3 to -1"):
        Qwen3ForCausalLM(num_hidden_layers=2).apply({"params": {}}, np.zeros((1, 1), np.int32), hidden_layers=(0, 3))


@pytest.mark.parametrize(
    ("cls", "folder", "manifest"),
    [
        (Qwen3ForCausalLM, "Tongyi-MAI/Z-Image-Turbo", "z-image-qwen3-4b"),
        (Qwen3ForCausalLM, "black-forest-labs/FLUX.2-klein-4B", "flux2-klein-4b-qwen3"),
        (Qwen3ForCausalLM, "black-forest-labs/FLUX.2-klein-9B", "flux2-klein-9b-qwen3-8b"),
        (Gemma2Model, "neta-art/Neta-Lumina", "gemma2-2b"),
    ],
)
def test_names_and_shapes_of_real_checkpoints(shared_data, cls, folder, manifest):
    """All but the head, which no pipeline reads."""
    folder = shared_data / "hub_configs" / folder / "text_encoder"
    model = cls.from_config(json.loads((folder / "config.json").read_text()))
    assert_names(model, shared_data / "manifests" / f"{manifest}.json.gz", {"lm_head.weight"})
    assert model.theta() == (1e4 if cls is Gemma2Model else 1e6)
    index = folder / "model.safetensors.index.json"
    if index.exists():
        leaves, _ = jax.tree_util.tree_flatten_with_path(model.shapes())
        names = {layout.torch_name(tuple(entry.key for entry in path)) for path, _ in leaves}
        assert names == set(json.loads(index.read_text())["weight_map"]) - {"lm_head.weight"}
