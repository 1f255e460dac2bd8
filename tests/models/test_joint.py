"""Diffusion transformers over pictures and a text, each with its own weights: SD3, Chroma, and their ControlNets."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import fdiff
from convert import layout
from fdiff import registry
from fdiff.registry import find_component
from tests.models.compare import assert_close, assert_names, from_torch, read
from tests.reference import make_joint as cases


def output_of(model, params, arrays):
    out = jax.jit(lambda params, arrays: model.apply({"params": params}, **arrays))(params, arrays)
    return out if isinstance(out, jax.Array) else np.stack(jax.tree.leaves(out))


@pytest.mark.parametrize("name", cases.STORED)
def test_stored_outputs(reference, name):
    cls = getattr(fdiff.models, cases.CONFIGS[name][0])
    model, params = cls.from_pretrained(reference / "joint" / name, dtype="float32")
    assert_close(output_of(model, params, cases.inputs(name)), read(reference / "joint" / f"{name}.npz")["output"])
    assert cls.from_config(model.config()) == model


@pytest.mark.parity
@pytest.mark.parametrize("name", cases.CONFIGS)
def test_outputs_live(name):
    pytest.importorskip("diffusers")
    torch_model = cases.build(name)
    model, params = from_torch(getattr(fdiff.models, cases.CONFIGS[name][0]), torch_model)
    arrays = cases.inputs(name)
    assert_close(output_of(model, params, arrays), cases.run(name, torch_model, arrays))


@pytest.mark.parity
def test_a_fresh_table_is_that_of_a_fresh_model_in_torch():
    diffusers = pytest.importorskip("diffusers")
    wanted = diffusers.SD3Transformer2DModel(**cases.SD3).pos_embed.pos_embed.numpy()
    params = fdiff.SD3Transformer2DModel(**cases.SD3).init_params(jax.random.key(0))
    np.testing.assert_allclose(params["pos_embed"]["pos_embed"], wanted, atol=1e-6)


def test_tokens_that_are_masked_change_nothing(reference):
    model, params = fdiff.ChromaTransformer2DModel.from_pretrained(reference / "joint/chroma_masked", dtype="float32")
    arrays = cases.inputs("chroma_masked")
    arrays |= {key: arrays[key][:1] for key in ("hidden_states", "encoder_hidden_states", "attention_mask")}
    arrays["timestep"] = arrays["timestep"][:1]
    masked = output_of(model, params, arrays)
    arrays["encoder_hidden_states"] = arrays["encoder_hidden_states"][:, :3]
    arrays["txt_ids"] = arrays["txt_ids"][:3]
    del arrays["attention_mask"]
    np.testing.assert_allclose(masked, output_of(model, params, arrays), atol=1e-5)


@pytest.mark.parametrize("name", cases.STORED)
def test_half_precision(reference, name):
    """All is computed in bfloat16, and near what float32 gives."""
    cls = getattr(fdiff.models, cases.CONFIGS[name][0])
    model, params = cls.from_pretrained(reference / "joint" / name, dtype="bfloat16")
    arrays = cases.inputs(name)
    for key in arrays.keys() & {"hidden_states", "encoder_hidden_states", "pooled_projections", "controlnet_cond"}:
        arrays[key] = arrays[key].astype(jnp.bfloat16)
    out = output_of(model, params, arrays)
    assert out.dtype == jnp.bfloat16
    assert_close(out, read(reference / "joint" / f"{name}.npz")["output"], 0.1)


def test_training_does_not_change_the_table_of_places(reference):
    model, params = fdiff.SD3Transformer2DModel.from_pretrained(reference / "joint/sd35", dtype="float32")
    arrays = cases.inputs("sd35")
    slopes = jax.jit(jax.grad(lambda params: output_of(model, params, arrays).sum()))(params)
    assert not np.any(slopes["pos_embed"]["pos_embed"])
    assert np.any(slopes["pos_embed"]["proj"]["kernel"])


def refused(match, name, changes=(), **options):
    cls = getattr(fdiff.models, cases.CONFIGS[name][0])
    with pytest.raises(ValueError, match=match):
        model = cls(**{**cases.CONFIGS[name][1], **options})
        jax.eval_shape(lambda: model.init(jax.random.key(0), **{**cases.inputs(name), **dict(changes)}))


def test_wrong_options_and_inputs_are_told():
    refused("caption_projection_dim 24 must be num_attention_heads", "sd3", caption_projection_dim=24)
    refused("sample_size 8 is no multiple of patch_size 3", "sd3", patch_size=3)
    refused("qk_norm 'layer_norm' is unknown", "sd3", qk_norm="layer_norm")
    refused("6 x 7 latents cannot be cut into patches of 2 x 2", "sd3", {"hidden_states": np.zeros((2, 6, 7, 4))})
    refused("14 x 6 latents .* 6 along a side at most", "sd3", {"hidden_states": np.zeros((2, 14, 6, 4))})
    refused(r"pooled_projections \(batch, 7\)", "sd3", {"pooled_projections": np.zeros((2, 6))})
    refused(r"axes_dims_rope \(2, 2, 2\) must add up to attention_head_dim, 10", "chroma", axes_dims_rope=(2, 2, 2))
    refused("approximator_num_channels is 6; it must be a multiple of 4", "chroma", approximator_num_channels=6)
    refused(r"hidden_states must be \(batch, number, 6\)", "chroma", {"img_ids": np.zeros((12, 4))})


def test_wrong_options_and_inputs_of_controlnets_are_told():
    refused("hidden_states must be .batch, patches, features.", "sd3_control", use_pos_embed=False)
    refused("hidden_states must be .batch, height, width", "sd3_control_alone", use_pos_embed=True)
    refused("This SD3ControlNetModel needs encoder_hidden_states", "sd3_control", {"encoder_hidden_states": None})
    refused("This SD3ControlNetModel takes no encoder_hidden_states", "sd3_control", joint_attention_dim=None)
    refused("This FluxControlNetModel needs a controlnet_mode", "flux_control", {"controlnet_mode": None})
    refused("This FluxControlNetModel takes no controlnet_mode", "flux_control", num_mode=None)
    refused("conditioning_embedding_channels 3 in squares of 2 x 2", "flux_control_hint",
            conditioning_embedding_channels=3)  # fmt: skip


SD3_FOLDERS = "stabilityai/stable-diffusion-3-medium-diffusers", "stabilityai/stable-diffusion-3.5-large"


@pytest.mark.parametrize(
    ("folder", "manifest"),
    [
        (f"{SD3_FOLDERS[0]}/transformer", "sd3-transformer"),
        (f"{SD3_FOLDERS[1]}/transformer", "sd35-large-transformer"),
        (f"{SD3_FOLDERS[0]}/vae", "sd3-vae"),
        ("lodestones/Chroma1-HD/transformer", "chroma-transformer"),
    ],
)
def test_names_and_shapes_of_real_checkpoints(shared_data, folder, manifest):
    config = json.loads((shared_data / "hub_configs" / folder / "config.json").read_text())
    model = getattr(fdiff.models, config["_class_name"]).from_config(config)
    assert_names(model, shared_data / "manifests" / f"{manifest}.json.gz")


@pytest.mark.parametrize("name", [*SD3_FOLDERS, "lodestones/Chroma1-HD", "black-forest-labs/FLUX.1-Krea-dev"])
def test_real_configs_are_read(shared_data, name):
    """All models of a repository, and the pipeline that is made of them."""
    folder = shared_data / "hub_configs" / name
    index = json.loads((folder / "model_index.json").read_text())
    kind, parts = registry.lookup(index["_class_name"]), {}
    for part, (_, cls) in ((part, entry) for part, entry in index.items() if isinstance(entry, list)):
        found = find_component(cls, name)
        file = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
        parts[part] = found.from_config(json.loads(file.read_text())) if file.exists() else None
    assert {part for part, one in parts.items() if one is None} == {part for part in parts if "tokenizer" in part}
    pipe = kind(**parts)
    assert type(pipe).__name__ == index["_class_name"]
    if name == SD3_FOLDERS[1]:
        names = {layout.torch_name(path) for path in flatten_dict(pipe.transformer.shapes())}
        index = json.loads((folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json").read_text())
        assert names == set(index["weight_map"])
