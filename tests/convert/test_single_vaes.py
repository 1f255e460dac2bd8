"""Autoencoders in one file, by the names of their authors: those of FLUX.2, Wan and Qwen-Image."""

import json

import jax
import numpy as np
import pytest

import fdiff
from convert import single_file
from tests.convert import original_names
from tests.convert.original_transformers import arrays, write
from tests.convert.test_single_file import equal, manifest, on_file, prefixed, widen
from tests.reference import make_qwenimage

FLUX2 = {"block_out_channels": (4, 4, 8, 8), "latent_channels": 6, "layers_per_block": 1, "norm_num_groups": 4}
WAN = {**make_qwenimage.VAE, "num_res_blocks": 2}


def flux2(names, widened):
    """The names of Black Forest Labs: the convolutions beside the latents are parts of the halves."""
    halves = {"quant_conv.": "encoder.quant_conv.", "post_quant_conv.": "decoder.post_quant_conv."}
    found = {next((new + name.removeprefix(old) for old, new in halves.items() if name.startswith(old)), name): value
             for name, value in names.items()}  # fmt: skip
    return original_names.vae(found, widened)


@pytest.mark.parametrize("name", ["flux2-vae", "qwen-image-vae", "wan21-vae"])
def test_names_and_shapes_of_full_size(name, shared_data):
    today = manifest(shared_data, name)
    whole = flux2(today, widen) if name == "flux2-vae" else {
        original_names.wan_vae(key): shape for key, shape in today.items()
    }  # fmt: skip
    assert len(whole.keys() - today.keys()) > 100
    for prefix in ("", "first_stage_model.", "vae."):
        found = single_file.parts(on_file(prefixed(prefix, whole)), file="x")
        assert found.keys() == {"vae"}
        assert {key: tensor.shape for key, tensor in found["vae"].items()} == today


def drawn(model):
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: random.standard_normal(leaf.shape, np.float32), model.shapes())


def test_files(tmp_path):
    """Tiny ones, whose configs are not those that files of full size have."""
    def wan(found):
        return {original_names.wan_vae(key): x for key, x in found.items()}

    for cls, config, named in (
        ("AutoencoderKLFlux2", FLUX2, lambda found: flux2(found, lambda x: x[..., None, None])),
        ("AutoencoderKLQwenImage", WAN, wan), ("AutoencoderKLWan", WAN, wan),
    ):  # fmt: skip
        model = getattr(fdiff, cls)(**config)
        params = drawn(model)
        file = write(tmp_path / f"{cls}.safetensors", named(arrays(params)))
        (tmp_path / "vae").mkdir(exist_ok=True)
        (tmp_path / "vae" / "config.json").write_text(json.dumps(model.config()))
        again, tree = getattr(fdiff, cls).from_single_file(file, config=tmp_path / "vae")
        assert again == model and equal(tree, params)
    with pytest.raises(ValueError, match="does not say how its AutoencoderKLWan is built; pass config="):
        fdiff.AutoencoderKLWan.from_single_file(file)


def test_what_the_tensors_tell(shared_data):
    parts = {"vae": on_file(manifest(shared_data, "flux2-vae"))}
    cls, config = single_file.family({}, parts, file="x").models["vae"]
    hub = shared_data / "hub_configs" / "black-forest-labs/FLUX.2-klein-4B" / "vae" / "config.json"
    assert getattr(fdiff, cls).from_config(config) == fdiff.AutoencoderKLFlux2.from_config(json.loads(hub.read_text()))
    with pytest.raises(ValueError, match=r"x is of no kind that fdiff reads: .* may be Wan's or Qwen-Image's"):
        single_file.family({}, {"vae": on_file(manifest(shared_data, "wan21-vae"))}, file="x")


@pytest.mark.parity
@pytest.mark.parametrize("name", ["qwen-image-vae", "wan21-vae"])
def test_names_are_those_of_diffusers(name, shared_data):
    utils = pytest.importorskip("diffusers.loaders.single_file_utils")
    today = {key: key for key in manifest(shared_data, name)}
    assert utils.convert_wan_vae_to_diffusers({original_names.wan_vae(key): key for key in today}) == today
