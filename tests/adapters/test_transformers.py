"""LoRA, LoHa and LoKr of diffusion transformers, beside diffusers and peft: what they make of the weights."""

import numpy as np
import pytest

import fdiff
from fdiff.adapters import lora
from tests.adapters import dialects
from tests.convert.original_transformers import arrays, original
from tests.reference import make_joint, make_qwenimage, make_single_stream, make_transformers

pytestmark = pytest.mark.parity

MODELS = {
    "sd3": make_joint.CONFIGS["sd35"],
    "flux": make_transformers.CONFIGS["flux"],
    "flux2": make_transformers.CONFIGS["flux2"],
    "z_image": make_transformers.CONFIGS["z_image"],
    "qwen_image": ("QwenImageTransformer2DModel", make_qwenimage.TRANSFORMER),
    "lumina2": make_single_stream.CONFIGS["lumina2"],
    "sana": make_transformers.CONFIGS["sana"],
}  # fmt: skip
TARGETS = ["to_q", "to_k", "to_out.0", "proj_out", "proj_mlp", "to_qkv_mlp_proj", "linear_1"]


def both(name, folder):
    """(diffusers' model, its parameters here)."""
    diffusers, torch = pytest.importorskip("diffusers"), pytest.importorskip("torch")
    cls, config = MODELS[name]
    torch.manual_seed(0)
    theirs = getattr(diffusers, cls)(**config)
    theirs.save_pretrained(folder / "model")
    return theirs, getattr(fdiff, cls).from_pretrained(folder / "model")[1]


def assert_weights(params, theirs, before):
    """The same weights in the end, of which many are not what they were."""
    found, first = arrays(params), arrays(before)
    assert found.keys() == theirs.keys()
    for key, array in found.items():
        np.testing.assert_allclose(array, theirs[key], atol=2e-5 * (np.abs(theirs[key]).max() + 1e-3), err_msg=key)
    assert sum(not np.array_equal(found[key], first[key]) for key in found) > 4


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["LoHa", "LoKr"])
def test_methods_of_peft(name, kind, tmp_path):
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    theirs, params = both(name, tmp_path)
    wrapper = peft.get_peft_model(theirs, getattr(peft, f"{kind}Config")(r=2, alpha=3, target_modules=TARGETS))
    for parameter in wrapper.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    wrapper.save_pretrained(tmp_path / "adapter")
    merged, _ = lora.merge({"transformer": params}, lora.load(tmp_path / "adapter", {"transformer": params}))
    wanted = {key: x.numpy() for key, x in wrapper.merge_and_unload().state_dict().items()}
    assert_weights(merged["transformer"], wanted, params)


def factors(layers, suffixes, prefix, alpha=None):
    """Random factors of rank 2 of those layers, which have (rows, columns)."""
    random = np.random.default_rng(1)
    found = {}
    for layer, shape in layers.items():
        named = prefix + (layer.replace(".", "_") if prefix == "lora_unet_" else layer)
        found[named + suffixes[0]] = random.standard_normal((2, shape[1]), np.float32)
        found[named + suffixes[1]] = random.standard_normal((shape[0], 2), np.float32)
        if alpha is not None:
            found[f"{named}.alpha"] = np.float32(alpha)
    return found


@pytest.mark.parametrize("dialect", ["diffusers", "peft"])
def test_stable_diffusion_3_beside_diffusers(dialect, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    theirs, params = both("sd3", tmp_path)
    ends = {"diffusers": (".lora.down.weight", ".lora.up.weight"), "peft": (".lora_A.weight", ".lora_B.weight")}
    layers = {key.removesuffix(".weight"): x.shape for key, x in arrays(params).items()
              if x.ndim == 2 and key.endswith(".weight") and "blocks" in key}  # fmt: skip
    file = dialects.write(tmp_path / "x.safetensors", (factors(layers, ends[dialect], "transformer."), {}))
    merged, _ = lora.merge({"transformer": params}, lora.load(file, {"transformer": params}))
    pipeline = diffusers.StableDiffusion3Pipeline
    pipeline.load_lora_into_transformer(pipeline.lora_state_dict(str(file)), transformer=theirs)
    theirs.fuse_lora()
    theirs.unload_lora()
    wanted = {key: x.detach().numpy() for key, x in theirs.state_dict().items()}
    assert_weights(merged["transformer"], wanted, params)


@pytest.mark.parametrize("prefix", ["lora_unet_", "diffusion_model."])
def test_stable_diffusion_3_in_its_own_names(prefix, tmp_path):
    """kohya's and ComfyUI's, which diffusers does not read: as if they were put into the checkpoint before it reads."""
    torch = pytest.importorskip("torch")
    utils = pytest.importorskip("diffusers.loaders.single_file_utils")
    _, params = both("sd3", tmp_path)
    base = original(arrays(params))
    layers = {key.removesuffix(".weight"): x.shape for key, x in base.items()
              if x.ndim == 2 and key.endswith(".weight")}  # fmt: skip
    found = factors(layers, (".lora_down.weight", ".lora_up.weight"), prefix, alpha=3.0)
    for layer in layers:
        named = prefix + (layer.replace(".", "_") if prefix == "lora_unet_" else layer)
        change = found[f"{named}.lora_up.weight"] @ found[f"{named}.lora_down.weight"]
        base[f"{layer}.weight"] = base[f"{layer}.weight"] + 3.0 / 2 * change
    file = dialects.write(tmp_path / "x.safetensors", (found, {}))
    merged, _ = lora.merge({"transformer": params}, lora.load(file, {"transformer": params}))
    wanted = utils.convert_sd3_transformer_checkpoint_to_diffusers({k: torch.from_numpy(x) for k, x in base.items()})
    assert_weights(merged["transformer"], {key: x.numpy() for key, x in wanted.items()}, params)
