import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import fdiff
from convert import layout
from fdiff import hub
from fdiff.models import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    StableDiffusionSafetyChecker,
)

TEXT = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}


def assert_close(actual, expected, tolerance=1e-4):
    """Within 1e-4 of the largest value."""
    expected = np.asarray(expected, np.float32)
    assert actual.shape == expected.shape
    assert np.abs(np.asarray(actual, np.float32) - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("case", ["", "masked."])
@pytest.mark.parametrize("name", TEXT)
def test_text_towers(reference, name, case):
    saved = np.load(reference / "clip" / "text.npz")
    model, params = TEXT[name].from_pretrained(reference / "clip" / name, dtype="float32")
    mask = saved["mask"] if case else None
    output = jax.jit(lambda p, ids: model.apply({"params": p}, ids, mask, 1))(params, saved["ids"])
    expected = {key.removeprefix(f"{name}.{case}"): saved[key] for key in saved if key.startswith(f"{name}.{case}")}
    assert_close(output.last_hidden_state, expected["skipped"])
    assert_close(output.hidden_states[-2], expected["penultimate"])
    whole = model.apply({"params": params}, saved["ids"], mask)
    assert_close(whole.last_hidden_state, expected["last_hidden_state"])
    pooled = "text_embeds" if name == "text_encoder_2" else "pooler_output"
    assert_close(getattr(output, pooled), expected[pooled])  # clip_skip leaves it alone
    assert len(output.hidden_states) == model.num_hidden_layers + 1


def test_bfloat16_stays_finite(reference):
    model, params = CLIPTextModel.from_pretrained(reference / "clip" / "text_encoder", dtype="bfloat16")
    saved = np.load(reference / "clip" / "text.npz")
    output = jax.jit(model.apply)({"params": params}, saved["ids"])
    assert output.last_hidden_state.dtype == jnp.bfloat16
    assert_close(output.last_hidden_state, saved["text_encoder.last_hidden_state"], 0.1)


def test_vision_tower(reference, tmp_path):
    saved = np.load(reference / "clip" / "vision.npz")
    model, params = CLIPVisionModelWithProjection.from_pretrained(reference / "clip" / "image_encoder", dtype="float32")
    pictures = saved["pictures"][:3].astype(np.float32)
    output = jax.jit(model.apply)({"params": params}, pictures)
    assert_close(output.image_embeds, saved["image_embeds"])
    assert_close(output.last_hidden_state, saved["last_hidden_state"])
    assert_close(output.hidden_states[-2], saved["penultimate"])
    # transformers 5 saves the tower alone without the prefix of its names.
    tensors = load_file(reference / "clip" / "image_encoder" / "model.safetensors")
    tower = {k.removeprefix("vision_model."): v for k, v in tensors.items() if k != "visual_projection.weight"}
    save_file(tower, tmp_path / "model.safetensors")
    hub.write_json(tmp_path / "config.json", CLIPVisionModel.from_config(model.config()).config())
    alone, params = CLIPVisionModel.from_pretrained(tmp_path, dtype="float32")
    assert_close(alone.apply({"params": params}, pictures).pooler_output, output.pooler_output)


def test_safety_checker(reference):
    saved = np.load(reference / "clip" / "vision.npz")
    model, params = StableDiffusionSafetyChecker.from_pretrained(reference / "clip" / "safety_checker", dtype="float32")
    pictures = saved["pictures"].astype(np.float32)
    run = jax.jit(model.apply)
    unsafe = run({"params": params}, pictures)
    np.testing.assert_array_equal(unsafe, saved["unsafe"])
    careless = {**params, "special_care_embeds_weights": params["special_care_embeds_weights"] + 9}
    assert run({"params": careless}, pictures).sum() < unsafe.sum()  # some need the special care
    assert StableDiffusionSafetyChecker.from_config(model.config()) == model


def test_files_come_back_as_they_were(reference, tmp_path):
    for name, cls in {
        **TEXT,
        "image_encoder": CLIPVisionModelWithProjection,
        "safety_checker": StableDiffusionSafetyChecker,
    }.items():
        model, params = cls.from_pretrained(reference / "clip" / name)
        model.save_pretrained(tmp_path / name, params)
        again, same = cls.from_pretrained(tmp_path / name)
        assert again == model
        jax.tree.map(np.testing.assert_array_equal, params, same)


def test_wrong_inputs_are_told():
    model = CLIPTextModel(vocab_size=9, hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
    params = model.init_params(jax.random.key(0))
    with pytest.raises(ValueError, match="78 tokens are too many"):
        model.apply({"params": params}, np.zeros((1, 78), np.int32))
    with pytest.raises(ValueError, match="clip_skip 1 must be between 0 and 0"):
        model.apply({"params": params}, np.zeros((1, 7), np.int32), None, 1)
    vision = CLIPVisionModel(image_size=8, patch_size=4, hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
    with pytest.raises(ValueError, match=r"pictures are \(9, 8, 3\)"):
        vision.apply({"params": {}}, np.zeros((1, 9, 8, 3)))


@pytest.mark.parametrize(
    ("folder", "manifest", "prefix"),
    [
        ("runwayml/stable-diffusion-v1-5/text_encoder", "sd15-text-encoder", "text_model."),
        ("stabilityai/stable-diffusion-xl-base-1.0/text_encoder_2", "sdxl-text-encoder-2", ""),
    ],
)
def test_names_and_shapes_of_real_checkpoints(shared_data, folder, manifest, prefix):
    """Without allocating weights. The manifests' CLIPTextModel lacks the prefix that Hub files have."""
    config = json.loads((shared_data / "hub_configs" / folder / "config.json").read_text())
    model = getattr(fdiff.models, config["architectures"][0]).from_config(config)
    leaves, _ = jax.tree_util.tree_flatten_with_path(model.shapes())
    paths = {tuple(entry.key for entry in path): leaf.shape for path, leaf in leaves}
    ours = {layout.torch_name(path): list(layout.torch_shape(path, shape)) for path, shape in paths.items()}
    with gzip.open(shared_data / "manifests" / f"{manifest}.json.gz") as file:
        theirs = json.load(file)["tensors"]
    assert ours == {prefix + name: shape for name, shape in theirs.items()}


def test_real_configs_are_read(shared_data):
    classes = {}
    for file in sorted((shared_data / "hub_configs").glob("*/*/*/config.json")):
        config = json.loads(file.read_text())
        cls = getattr(fdiff.models, config.get("architectures", [""])[0], None)
        if cls is not None and cls.__name__.startswith(("CLIP", "StableDiffusionSafety")):
            classes[cls.__name__] = cls.from_config(config)
    assert set(classes) == {
        "CLIPTextModel",
        "CLIPTextModelWithProjection",
        "CLIPVisionModelWithProjection",
        "StableDiffusionSafetyChecker",
    }
    shapes = classes["StableDiffusionSafetyChecker"].shapes()
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 303_981_588


def into_params(model, state):
    """torch's tensors in the tree of the model."""

    def one(path, leaf):
        path = tuple(entry.key for entry in path)
        return layout.from_torch(path, state[layout.torch_name(path)].numpy())

    return jax.tree_util.tree_map_with_path(one, model.shapes())


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["sd15", "openclip_h", "bigg"])
def test_text_towers_live(kind):
    """Like the text encoders of SD 1.5, SD 2.x and SDXL, a quarter as wide and deep; new and old pooling."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {
        "sd15": (192, 3, 3, "quick_gelu", 2),
        "openclip_h": (256, 6, 4, "gelu", 2),
        "bigg": (320, 8, 5, "gelu", 990),
    }
    width, layers, heads, act, eos = sizes[kind]
    config = transformers.CLIPTextConfig(
        vocab_size=1000,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        eos_token_id=eos,
        num_attention_heads=heads,
        hidden_act=act,
        projection_dim=width,
        bos_token_id=989,
    )
    theirs = transformers.CLIPTextModelWithProjection(config).eval()
    for parameter in theirs.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    model = CLIPTextModelWithProjection.from_config(config.to_dict())
    params = into_params(model, theirs.state_dict())
    ids = np.random.default_rng(0).integers(0, 989, (4, 77)).astype(np.int32)
    mask = np.ones_like(ids)
    for row, end in enumerate((1, 20, 50, 76)):
        ids[row, end:] = 999 if eos == 2 else eos
        mask[row, end + 1 :] = 0
    run = jax.jit(lambda p, ids, mask: model.apply({"params": p}, ids, mask))
    for attention in (None, mask):
        extra = {} if attention is None else {"attention_mask": torch.from_numpy(attention).long()}
        with torch.no_grad():
            expected = theirs(torch.from_numpy(ids).long(), output_hidden_states=True, **extra)
        output = run(params, ids, attention)
        for name in ("text_embeds", "last_hidden_state"):
            assert_close(getattr(output, name), expected[name].numpy())
        for ours, one in zip(output.hidden_states, expected.hidden_states, strict=True):
            assert_close(ours, one.numpy())


@pytest.mark.parity
def test_vision_tower_live():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=3,
        patch_size=14,
        image_size=112,
    )
    theirs = transformers.CLIPVisionModelWithProjection(config).eval()
    model = CLIPVisionModelWithProjection.from_config(config.to_dict())
    params = into_params(model, theirs.state_dict())
    pictures = np.random.default_rng(0).standard_normal((2, 112, 112, 3)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(pictures).permute(0, 3, 1, 2), output_hidden_states=True)
    output = jax.jit(model.apply)({"params": params}, pictures)
    assert_close(output.image_embeds, expected.image_embeds.numpy())
    assert_close(output.hidden_states[-2], expected.hidden_states[-2].numpy())
