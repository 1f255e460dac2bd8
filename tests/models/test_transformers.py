import json

import jax
import numpy as np
import pytest

import fdiff
from convert import layout
from fdiff import registry
from fdiff.models import (
    DiTTransformer2DModel,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    SanaTransformer2DModel,
    ZImageTransformer2DModel,
)
from fdiff.models.layers.patches import from_patches, to_patches
from tests.models.compare import assert_close, assert_names, from_torch, read
from tests.reference import make_transformers as cases


def compare(name, model, params, expected):
    output = jax.jit(lambda params, arrays: model.apply({"params": params}, **arrays))(params, cases.inputs(name))
    assert_close(output, expected)


@pytest.mark.parametrize("name", cases.STORED)
def test_stored_outputs(reference, name):
    cls = getattr(fdiff.models, cases.CONFIGS[name][0])
    model, params = cls.from_pretrained(reference / "transformers" / name, dtype="float32")
    compare(name, model, params, read(reference / "transformers" / f"{name}.npz")["output"])
    assert cls.from_config(model.config()) == model


@pytest.mark.parity
@pytest.mark.parametrize("name", cases.CONFIGS)
def test_outputs_live(name):
    pytest.importorskip("diffusers")
    torch_model = cases.build(name)
    model, params = from_torch(getattr(fdiff.models, cases.CONFIGS[name][0]), torch_model)
    compare(name, model, params, cases.run(name, torch_model, cases.inputs(name)))


def test_a_text_is_the_same_whatever_lies_behind_it(reference):
    """Z-Image: cut where it ends, told by a mask, or in a longer array."""
    model, params = ZImageTransformer2DModel.from_pretrained(reference / "transformers" / "z_image", dtype="float32")
    arrays = {key: array[:1] for key, array in cases.inputs("z_image").items()}
    masked = model.apply({"params": params}, **arrays)
    arrays["encoder_hidden_states"] = arrays["encoder_hidden_states"][:, :5]
    del arrays["encoder_attention_mask"]
    np.testing.assert_allclose(masked, model.apply({"params": params}, **arrays), atol=1e-5)


def test_patches():
    x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    patches = to_patches(x, 2)
    assert patches.shape == (2, 6, 12)
    assert patches[0, 1].tolist() == x[0, :2, 2:4].ravel().tolist()
    np.testing.assert_array_equal(from_patches(patches, 4, 6, 2), x)
    with pytest.raises(ValueError, match="4 x 6 cannot be cut into patches of 4 x 4"):
        to_patches(x, 4)


def test_wrong_inputs_of_flux2_are_told():
    def told(match, name="flux2", changes=(), **options):
        with pytest.raises(ValueError, match=match):
            model = Flux2Transformer2DModel(**{**cases.CONFIGS[name][1], **options})
            jax.eval_shape(lambda: model.init(jax.random.key(0), **{**cases.inputs(name), **dict(changes)}))

    told(r"axes_dims_rope \(2, 2, 2, 2\) must add up to attention_head_dim, 10", axes_dims_rope=(2, 2, 2, 2))
    told("This Flux2Transformer2DModel needs guidance", changes={"guidance": None})
    told("This Flux2Transformer2DModel takes no guidance", "flux2_klein", {"guidance": np.ones(2)})
    told(r"hidden_states must be \(batch, number, 6\), with ids", changes={"img_ids": np.zeros((24, 3))})
    told(r"encoder_hidden_states must be \(batch, number, 12\)", changes={"encoder_hidden_states": np.zeros((2, 5, 6))})


def test_wrong_inputs_of_flux_are_told():
    def told(match, name="flux", changes=(), **options):
        with pytest.raises(ValueError, match=match):
            model = FluxTransformer2DModel(**{**cases.CONFIGS[name][1], **options})
            jax.eval_shape(lambda: model.init(jax.random.key(0), **{**cases.inputs(name), **dict(changes)}))

    told(r"axes_dims_rope \(2, 2, 2\) must add up to attention_head_dim, 10", axes_dims_rope=(2, 2, 2))
    told("This FluxTransformer2DModel needs guidance", changes={"guidance": None})
    told("This FluxTransformer2DModel takes no guidance", "flux_schnell", {"guidance": np.ones(2)})
    told(r"hidden_states must be \(batch, number, 6\), with ids", changes={"img_ids": np.zeros((24, 4))})


def test_wrong_options_and_inputs_are_told():
    def told(match, changes=(), **options):
        with pytest.raises(ValueError, match=match):
            model = ZImageTransformer2DModel(**{**cases.CONFIGS["z_image"][1], **options})
            inputs = dict(zip(("sample", "timestep", "encoder_hidden_states"), model.example_inputs(), strict=True))
            jax.eval_shape(lambda: model.init(jax.random.key(0), **{**inputs, **dict(changes)}))

    told("siglip_feat_dim must be null", siglip_feat_dim=8)
    told(r"axes_dims \(4, 4, 6\) must add up to dim / n_heads, 24 / 2", axes_dims=(4, 4, 6))
    told(r"sample must be \(batch, height, width, 4\)", {"sample": np.zeros((1, 4, 4, 3))})
    told(r"must be \(batch, number, 10\)", {"encoder_hidden_states": np.zeros((1, 4, 9))})
    told("is too large for axes_lens", {"sample": np.zeros((1, 4, 20, 4))})
    told("A text of 70 tokens .* is too large for axes_lens", {"encoder_hidden_states": np.zeros((1, 70, 10))})


def test_dits_go_by_two_names(shared_data):
    """The config of facebook/DiT-XL-2-256, of a time when all transformers were one class."""
    config = {
        "_class_name": "Transformer2DModel", "activation_fn": "gelu-approximate", "attention_bias": True,
        "attention_head_dim": 72, "cross_attention_dim": None, "dropout": 0.0, "in_channels": 4,
        "norm_elementwise_affine": False, "norm_num_groups": 32, "norm_type": "ada_norm_zero",
        "num_attention_heads": 16, "num_embeds_ada_norm": 1000, "num_layers": 28, "num_vector_embeds": None,
        "only_cross_attention": False, "out_channels": 8, "patch_size": 2, "sample_size": 32,
        "upcast_attention": False, "use_linear_projection": False,
    }  # fmt: skip
    assert registry.lookup("Transformer2DModel", config=config) is DiTTransformer2DModel
    assert registry.lookup("Transformer2DModel", config={**config, "norm_type": "ada_norm"}) is None
    model = DiTTransformer2DModel.from_config(config)
    assert_names(model, shared_data / "manifests" / "dit-xl-2-256-transformer.json.gz")


def test_wrong_options_and_inputs_of_dits_are_told():
    def told(match, shape=(1, 8, 8, 3), **options):
        with pytest.raises(ValueError, match=match):
            model = DiTTransformer2DModel(**{**cases.DIT, **options})
            jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros(shape), 1))

    told("is 22; it must be a multiple of 4", attention_head_dim=11)
    told("sample_size 8 is no multiple of patch_size 3", patch_size=3)
    told(r"height and width multiples of 2; it is \(1, 8, 7, 3\)", (1, 8, 7, 3))
    told("norm_type 'ada_norm' is unknown", norm_type="ada_norm")


# The config of PixArt-alpha/PixArt-XL-2-1024-MS, of the same time, and how others differ from it.
PIXART = {
    "_class_name": "Transformer2DModel", "activation_fn": "gelu-approximate", "attention_bias": True,
    "attention_head_dim": 72, "attention_type": "default", "caption_channels": 4096, "cross_attention_dim": 1152,
    "double_self_attention": False, "dropout": 0.0, "in_channels": 4, "norm_elementwise_affine": False,
    "norm_eps": 1e-06, "norm_num_groups": 32, "norm_type": "ada_norm_single", "num_attention_heads": 16,
    "num_embeds_ada_norm": 1000, "num_layers": 28, "num_vector_embeds": None, "only_cross_attention": False,
    "out_channels": 8, "patch_size": 2, "sample_size": 128, "upcast_attention": False, "use_linear_projection": False,
}  # fmt: skip


@pytest.mark.parametrize(("manifest", "changes"), [
    ("alpha-1024", {}), ("alpha-512", {"sample_size": 64}),
    ("sigma-1024", {"interpolation_scale": 2, "use_additional_conditions": False}),
])  # fmt: skip
def test_pixarts_go_by_two_names(shared_data, manifest, changes):
    config = {**PIXART, **changes}
    assert registry.lookup("Transformer2DModel", config=config) is PixArtTransformer2DModel
    model = PixArtTransformer2DModel.from_config(config)
    assert model == PixArtTransformer2DModel.from_config({**config, "_class_name": "PixArtTransformer2DModel"})
    assert_names(model, shared_data / "manifests" / f"pixart-{manifest}-transformer.json.gz")


def test_a_pixart_does_not_see_what_pads_a_text():
    model = PixArtTransformer2DModel(**cases.CONFIGS["pixart_sigma"][1])
    arrays = {key: array[:1] for key, array in cases.inputs("pixart").items()}
    out = jax.jit(lambda params, arrays: model.apply({"params": params}, **arrays))
    params = model.init_params(jax.random.key(0))
    masked = out(params, arrays)
    cut = {**arrays, "encoder_hidden_states": arrays["encoder_hidden_states"][:, :3], "encoder_attention_mask": None}
    np.testing.assert_allclose(masked, out(params, cut), atol=1e-5)
    assert np.abs(masked - out(params, {**arrays, "encoder_attention_mask": None})).max() > 1e-3


def test_wrong_options_and_inputs_of_pixarts_are_told():
    def told(match, changes=(), **options):
        with pytest.raises(ValueError, match=match):
            model = PixArtTransformer2DModel(**{**cases.CONFIGS["pixart"][1], **options})
            jax.eval_shape(lambda: model.init(jax.random.key(0), **{**cases.inputs("pixart"), **dict(changes)}))

    told("is 22; it must be a multiple of 4", attention_head_dim=11)
    told("is 20; it must be a multiple of 3 with use_additional_conditions", attention_head_dim=10)
    told("sample_size 8 is no multiple of patch_size 3", patch_size=3)
    told("cross_attention_dim is 7 and .* is 24; with caption_channels they must be equal", cross_attention_dim=7)
    told("norm_type 'ada_norm' is unknown", norm_type="ada_norm")
    told(r"height and width multiples of 2; it is \(1, 8, 7, 3\)", {"hidden_states": np.zeros((1, 8, 7, 3))})
    told(r"must be \(batch, number, 10\); it is \(2, 5, 9\)", {"encoder_hidden_states": np.zeros((2, 5, 9))})
    told(r"needs resolution, .* \(2, 2\); its shape is \(\)", {"resolution": None})


SMALL = {  # Sana 0.6B
    "num_attention_heads": 36, "num_layers": 28, "num_cross_attention_heads": 16, "cross_attention_head_dim": 72,
    "cross_attention_dim": 1152,
}  # fmt: skip
NORMED = {"qk_norm": "rms_norm_across_heads"}


@pytest.mark.parametrize(("manifest", "options"), [
    ("sana-1600m-1024", {}), ("sana-600m", SMALL), ("sana15-4800m", {**NORMED, "num_layers": 60}),
    ("sana-sprint-600m", {**SMALL, **NORMED, "guidance_embeds": True}),
])  # fmt: skip
def test_names_of_sanas(shared_data, manifest, options):
    model = SanaTransformer2DModel(**options)
    assert_names(model, shared_data / "manifests" / f"{manifest}-transformer.json.gz")


def test_wrong_options_and_inputs_of_sanas_are_told():
    def told(match, name="sana", changes=(), **options):
        with pytest.raises(ValueError, match=match):
            model = SanaTransformer2DModel(**{**cases.CONFIGS[name][1], **options})
            jax.eval_shape(lambda: model.init(jax.random.key(0), **{**cases.inputs(name), **dict(changes)}))

    told("cross_attention_dim is 7 and .* is 12; they must be equal", cross_attention_dim=7)
    told("sample_size 4 is no multiple of patch_size 3", patch_size=3)
    told("qk_norm 'rms_norm' is unknown to SanaTransformer2DModel", qk_norm="rms_norm")
    told("This SanaTransformer2DModel takes no guidance", changes={"guidance": 4.5})
    told("This SanaTransformer2DModel needs guidance", "sana_sprint", {"guidance": None})
    odd = {"hidden_states": np.zeros((1, 8, 7, 3))}
    told(r"height and width multiples of 2; it is \(1, 8, 7, 3\)", "sana_sprint", odd)
    told(r"must be \(batch, number, 10\); it is \(2, 5, 9\)", changes={"encoder_hidden_states": np.zeros((2, 5, 9))})


@pytest.mark.parametrize(
    ("folder", "manifest"),
    [
        ("Tongyi-MAI/Z-Image-Turbo/transformer", "z-image-turbo-transformer"),
        ("Tongyi-MAI/Z-Image/transformer", "z-image-transformer"),
        ("black-forest-labs/FLUX.2-klein-4B/transformer", "flux2-klein-4b-transformer"),
        ("black-forest-labs/FLUX.2-klein-9B/transformer", "flux2-klein-9b-transformer"),
        ("black-forest-labs/FLUX.1-dev/transformer", "flux1-dev-transformer"),
    ],
)
def test_names_and_shapes_of_real_checkpoints(shared_data, folder, manifest):
    config = json.loads((shared_data / "hub_configs" / folder / "config.json").read_text())
    model = getattr(fdiff.models, config["_class_name"]).from_config(config)
    assert_names(model, shared_data / "manifests" / f"{manifest}.json.gz")


@pytest.mark.parametrize(
    "folder",
    [
        "Tongyi-MAI/Z-Image-Turbo", "black-forest-labs/FLUX.1-dev", "black-forest-labs/FLUX.1-schnell",
        "black-forest-labs/FLUX.2-klein-9B",
    ],
)  # fmt: skip
def test_names_of_the_hubs_index_files(shared_data, folder):
    folder = shared_data / "hub_configs" / folder / "transformer"
    config = json.loads((folder / "config.json").read_text())
    shapes = getattr(fdiff.models, config["_class_name"]).from_config(config).shapes()
    paths, _ = jax.tree_util.tree_flatten_with_path(shapes)
    names = {layout.torch_name(tuple(entry.key for entry in path)) for path, _ in paths}
    index = json.loads((folder / "diffusion_pytorch_model.safetensors.index.json").read_text())
    assert names == set(index["weight_map"])
