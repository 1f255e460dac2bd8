"""Every dialect of LoRA files, read into the one form."""

import gzip
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from convert import lora, methods
from tests.adapters import dialects, tiny

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj")


def restrict(adapter, *endings):
    return {
        component: {layer: factors for layer, factors in layers.items() if layer.endswith(endings)}
        for component, layers in adapter.items()
    }


@pytest.fixture(scope="module")
def sd():
    return {name: model.shapes() for name, model in tiny.models().items()}


@pytest.fixture(scope="module")
def sdxl():
    return {name: model.shapes() for name, model in tiny.models(sdxl=True).items()}


def same(a, b):
    assert {name: layers.keys() for name, layers in a.items()} == {name: layers.keys() for name, layers in b.items()}
    for component, layers in a.items():
        for layer, factors in layers.items():
            for one, other in zip(factors, b[component][layer], strict=True):
                np.testing.assert_array_equal(one, other, err_msg=layer)


@pytest.mark.parametrize(
    ("write", "endings", "alpha"),
    [
        (dialects.diffusers_old, ATTENTION, None),
        (dialects.diffusers_new, "", None),
        (dialects.peft, "", 5.0),
        (dialects.kohya, "", 5.0),
        (dialects.cloneofsimo, (*ATTENTION, "ff.net.0.proj"), None),
    ],
)
def test_dialects(sd, tmp_path, write, endings, alpha):
    wanted = restrict(tiny.adapter(sd, alpha=alpha), *([endings] if isinstance(endings, str) else endings))
    file = dialects.write(tmp_path / "x.safetensors", write(wanted))
    same(lora.read(file, tiny.shapes(sd)), wanted)


@pytest.mark.parametrize("original", [False, True])
def test_kohya_of_sdxl(sdxl, tmp_path, original):
    wanted = tiny.adapter(sdxl, alpha=1, dora=True)
    file = dialects.write(tmp_path / "x.safetensors", dialects.kohya(wanted, original=original, te1=True))
    names = dialects.kohya(wanted, original=original)[0]
    assert ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.alpha" in names) == original
    same(lora.read(file, tiny.shapes(sdxl)), wanted)


def test_the_real_file_of_cloneofsimo(shared_data):
    def layers(name, prefix=""):
        with gzip.open(shared_data / "manifests" / f"{name}.json.gz") as stream:
            tensors = json.load(stream)["tensors"]
        return {prefix + key.removesuffix(".weight"): tuple(shape) for key, shape in tensors.items()}

    shapes = {"unet": layers("sd15-unet"), "text_encoder": layers("sd15-text-encoder", "text_model.")}
    file = shared_data / "weights" / "lora" / "cloneofsimo_lora_disney.safetensors"
    adapter = lora.read(file, shapes)
    assert {name: len(found) for name, found in adapter.items()} == {"unet": 144, "text_encoder": 48}
    assert all(factors.alpha == factors.rank == 1 for found in adapter.values() for factors in found.values())
    # A file of SD 1.5 has layers that look alike: the shapes say that none is taken for one of another kind.
    last = adapter["unet"]["mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"]
    np.testing.assert_array_equal(last.down, lora.weights.tensors(file)["unet:143:down"].read())


def test_files_without_the_name_of_the_model(sd, tmp_path):
    wanted = {"unet": tiny.adapter(sd, only="attn")["unet"]}
    arrays, _ = dialects.peft(wanted)
    bare = {"base_model.model." + name.removeprefix("unet."): array for name, array in arrays.items()}
    file = dialects.write(tmp_path / "adapter_model.safetensors", (bare, {}))
    config = {"lora_alpha": 3, "alpha_pattern": {"attn1.to_k": 7}, "use_rslora": True, "r": 2}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    found = lora.read(file, tiny.shapes(sd))["unet"]
    assert found.keys() == wanted["unet"].keys()
    for layer, factors in found.items():
        assert factors.alpha == pytest.approx((7 if layer.endswith("attn1.to_k") else 3) * 2**0.5)


def test_a_file_without_the_name_of_the_model_is_of_one_model(sd, tmp_path):
    wanted = {"unet": tiny.adapter(sd, only="attn")["unet"]}
    arrays, _ = dialects.peft(wanted)
    bare = {"base_model.model." + name.removeprefix("unet."): array for name, array in arrays.items()}
    file = dialects.write(tmp_path / "x.safetensors", (bare, {}))
    half = {layer: shape for layer, shape in tiny.shapes(sd)["unet"].items() if not layer.startswith("up_blocks")}
    same(lora.read(file, {"controlnet": half, **tiny.shapes(sd)}), wanted)
    for name in [name for name in bare if ".up_blocks." in name]:
        del bare[name]
    dialects.write(file, (bare, {}))
    assert lora.read(file, {"controlnet": half, **tiny.shapes(sd)}).keys() == {"unet"}
    del bare["base_model.model.mid_block.attentions.0.transformer_blocks.0.attn1.to_k.lora_A.weight"]
    del bare["base_model.model.mid_block.attentions.0.transformer_blocks.0.attn1.to_k.lora_B.weight"]
    short = {layer: shape for layer, shape in half.items() if not layer.endswith("attn1.to_q")}
    assert lora.read(dialects.write(file, (bare, {})), {"unet": short, "controlnet": half}).keys() == {"controlnet"}


CONFIGS = {
    "{oops": "adapter_config.json is no JSON",
    "[1]": "adapter_config.json is no JSON object",
    '{"lora_alpha": "x"}': "lora_alpha in .*adapter_config.json is 'x', not a number",
    '{"lora_alpha": NaN}': "lora_alpha in .* is nan, not a number",
    '{"alpha_pattern": [1]}': r"alpha_pattern in .* is \[1\], not a mapping from layers to numbers",
    '{"alpha_pattern": {"(": 1}}': r"alpha_pattern in .* has '\(', which is no regular expression",
    '{"alpha_pattern": {"attn": null}}': "'attn' of alpha_pattern in .* is None, not a number",
}


def test_damaged_configs_of_peft(sd, tmp_path):
    arrays = dialects.peft({"unet": tiny.adapter(sd, only="attn2.to_k")["unet"]})[0]
    file = dialects.write(tmp_path / "adapter_model.safetensors", (arrays, {}))
    for text, message in CONFIGS.items():
        (tmp_path / "adapter_config.json").write_text(text)
        with pytest.raises(ValueError, match=f"{message}.*; correct it or download it again"):
            lora.read(file, tiny.shapes(sd))
    (tmp_path / "adapter_config.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ValueError, match=r"adapter_config.json is no JSON"):
        lora.read(file, tiny.shapes(sd))
    dialects.write(tmp_path / "x.safetensors", (arrays, {"lora_adapter_metadata": "{x"}))
    with pytest.raises(ValueError, match=r"lora_adapter_metadata of .*x.safetensors is no JSON"):
        lora.read(tmp_path / "x.safetensors", tiny.shapes(sd))


STARTS = {
    "pissa": "PiSSA.*path_initial_model", "pissa_niter_4": "PiSSA", "olora": "OLoRA", "corda": "CorDA",
    "lora_ga": "LoRA-GA", "loftq": "LoftQ.*the base that LoftQ made", "what_comes_next": "what_comes_next",
}  # fmt: skip


def test_files_relative_to_a_base_that_they_do_not_hold(sd, tmp_path):
    arrays = dialects.peft({"unet": tiny.adapter(sd, only="attn2.to_k")["unet"]})[0]
    file = dialects.write(tmp_path / "adapter_model.safetensors", (arrays, {}))
    config = tmp_path / "adapter_config.json"
    for start, message in STARTS.items():
        config.write_text(json.dumps({"init_lora_weights": start}))
        with pytest.raises(ValueError, match=f"init_lora_weights in .* is '{start}': a {message}.* "):
            lora.read(file, tiny.shapes(sd))
        beside = {"lora_adapter_metadata": json.dumps({"unet.init_lora_weights": start})}  # as diffusers keeps it
        with pytest.raises(ValueError, match=f"init_lora_weights in .* is '{start}': a .* is relative to a base"):
            lora.read(dialects.write(tmp_path / "x.safetensors", (arrays, beside)), tiny.shapes(sd))
    for start in (True, False, None, "gaussian", "eva", "orthogonal", "mica"):
        config.write_text(json.dumps({"init_lora_weights": start, "peft_type": "LORA", "use_qalora": False}))
        assert lora.read(file, tiny.shapes(sd))
    for option, value, message in [
        ("peft_type", "OFT", "peft_type in .*adapter_config.json is 'OFT', a method that is not supported"),
        ("kasa_config", {"beta": 1}, "kasa_config in .* is set: KaSA is not supported; merge it in peft"),
        ("alora_invocation_tokens", [1], "is set: aLoRA is not supported"),
    ]:
        config.write_text(json.dumps({option: value}))
        with pytest.raises(ValueError, match=message):
            lora.read(file, tiny.shapes(sd))


def test_names_of_wrapped_and_compiled_modules(sd, tmp_path):
    wanted = {"unet": tiny.adapter(sd, only="attn")["unet"]}
    arrays, metadata = dialects.peft(wanted)
    for wrapper in ("unet._orig_mod.", "unet.module.", "module.unet.", "base_model.model.unet._orig_mod.", "module."):
        wrapped = {name.replace("unet.", wrapper, 1): array for name, array in arrays.items()}
        same(lora.read(dialects.write(tmp_path / "x.safetensors", (wrapped, metadata)), tiny.shapes(sd)), wanted)


def test_names_of_comfyui_and_of_lycoris(sdxl, tmp_path):
    wanted = tiny.adapter(sdxl, alpha=1)
    kohya, _ = dialects.kohya(wanted, te1=True)
    for component, prefix in (("unet", "lora_unet_"), ("text_encoder", "lora_te1_")):
        one = {name.replace(prefix, "lycoris_"): array for name, array in kohya.items() if name.startswith(prefix)}
        found = lora.read(dialects.write(tmp_path / "x.safetensors", (one, {})), tiny.shapes(sdxl))
        same(found, {component: wanted[component]})
    arrays, metadata = dialects.peft(wanted)
    comfy = {"unet": "diffusion_model", "text_encoder": "text_encoders.clip_l.transformer",
             "text_encoder_2": "text_encoders.clip_g.transformer"}  # fmt: skip
    named = {".".join([comfy[name.split(".")[0]], name.partition(".")[2]]): array for name, array in arrays.items()}
    same(lora.read(dialects.write(tmp_path / "x.safetensors", (named, metadata)), tiny.shapes(sdxl)), wanted)


def test_damaged_tensors(sd, tmp_path):
    def read(**changed):
        arrays = {f"{name}.{key.replace('__', '.')}": np.asarray(array) for key, array in (good | changed).items()}
        save_file(arrays, tmp_path / "x.safetensors")
        return lora.read(tmp_path / "x.safetensors", tiny.shapes(sd))

    name = "lora_unet_down_blocks_0_resnets_0_conv1"
    good = {"lora_down__weight": np.ones((2, 8, 3, 3)), "lora_up__weight": np.ones((8, 2, 1, 1))}
    good |= {"alpha": np.ones(1)}
    assert read()["unet"]["down_blocks.0.resnets.0.conv1"].alpha == 1
    where = r"down_blocks.0.resnets.0.conv1 in .*x.safetensors"
    for key, array, message in [
        ("lora_down__weight", np.float32(1), rf"{where} has shapes \(\) and \(8, 2, 1, 1\) and the model's"),
        ("lora_down__weight", np.ones((0, 8, 3, 3)), rf"{where} has shapes \(0, 8, 3, 3\) and"),
        ("lora_up__weight", np.ones(8), rf"{where} has shapes \(2, 8, 3, 3\) and \(8,\) and"),
        ("lora_mid__weight", np.ones((3, 3, 3)), rf"{where} has a lora_mid of shape \(3, 3, 3\)"),
        ("lora_mid__weight", np.ones((2, 4, 3, 3)), rf"{where} has a lora_mid of shape \(2, 4, 3, 3\)"),
        ("alpha", np.ones(3), rf"the alpha of unet.{where} is of shape \(3,\), not a number"),
        ("alpha", np.float32("nan"), rf"the alpha of unet.{where} is nan, not a number"),
        ("lora__down__weight", np.ones((2, 8, 3, 3)), r"holds the down part of unet.*conv1 twice, also as lora_unet"),
    ]:
        with pytest.raises(ValueError, match=message):
            read(**{key: array})
    with pytest.raises(ValueError, match=r"x.safetensors holds no layer of a LoRA; choose another file"):
        lora.read(dialects.write(tmp_path / "x.safetensors", ({}, {"of": "nothing"})), tiny.shapes(sd))
    with pytest.raises(ValueError, match=r"unet in the metadata of .* is no JSON list"):
        lora.read(dialects.write(tmp_path / "x.safetensors", ({"unet:0:up": np.ones(1)}, {"unet": "["})), {})


def test_convolutions_between_two_others(sd, tmp_path):
    layer = "down_blocks.0.resnets.0.conv1"
    rng = np.random.default_rng(0)
    down, mid, up = (rng.standard_normal(shape) for shape in ((3, 8, 1, 1), (3, 3, 3, 3), (8, 3, 1, 1)))
    name = "lora_unet_" + layer.replace(".", "_")
    arrays = {f"{name}.lora_down.weight": down, f"{name}.lora_mid.weight": mid, f"{name}.lora_up.weight": up}
    found = lora.read(dialects.write(tmp_path / "x.safetensors", (arrays, {})), tiny.shapes(sd))["unet"][layer]
    want = np.einsum("nmkl,in,mj->ijkl", mid, up[:, :, 0, 0], down[:, :, 0, 0])
    np.testing.assert_allclose(np.einsum("or,rihw->oihw", found.up[:, :, 0, 0], found.down), want, rtol=1e-12)


def test_matrices_for_convolutions_and_the_reverse(sd, tmp_path):
    wanted = tiny.adapter(sd, only="proj_in")
    arrays, _ = dialects.kohya(wanted)
    flat = {name: array.reshape(array.shape[:2]) if array.ndim else array for name, array in arrays.items()}
    same(lora.read(dialects.write(tmp_path / "x.safetensors", (flat, {})), tiny.shapes(sd)), wanted)
    wanted = tiny.adapter(sd, only="to_q")
    arrays, _ = dialects.kohya(wanted)
    wide = {name: array[..., None, None] if array.ndim else array for name, array in arrays.items()}
    same(lora.read(dialects.write(tmp_path / "x.safetensors", (wide, {})), tiny.shapes(sd)), wanted)


def test_dora_by_inputs(sd, tmp_path):
    wanted = tiny.adapter(sd, only="ff.net.2")
    arrays, _ = dialects.kohya(wanted)
    for name in [name for name in arrays if name.endswith("lora_down.weight")]:
        arrays[name.replace("lora_down.weight", "dora_scale")] = np.ones((1, arrays[name].shape[1]), np.float32)
    found = lora.read(dialects.write(tmp_path / "x.safetensors", (arrays, {})), tiny.shapes(sd))["unet"]
    assert all(factors.dora_scale.shape == (1, factors.down.shape[1]) for factors in found.values())


def test_writing(sd, tmp_path):
    wanted = tiny.adapter(sd, dora=True, alpha=3)
    lora.write(tmp_path / "x.safetensors", wanted)
    same(lora.read(tmp_path / "x.safetensors", tiny.shapes(sd)), wanted)
    mixed = tiny.adapter(sd, rank=4, alpha=1, only="attn")
    mixed["unet"] |= tiny.adapter(sd, rank=3, only="conv")["unet"]
    lora.write(tmp_path / "y.safetensors", mixed)
    same(lora.read(tmp_path / "y.safetensors", tiny.shapes(sd)), mixed)


def test_what_is_refused(sd, sdxl, tmp_path):
    def read(arrays, metadata=None):
        return lora.read(dialects.write(tmp_path / "x.safetensors", (arrays, metadata or {})), tiny.shapes(sd))

    good, _ = dialects.kohya(tiny.adapter(sd, only="attn2.to_k"))
    name = next(name for name in good if name.endswith("lora_up.weight"))
    with pytest.raises(ValueError, match=r"x.safetensors holds lora_unet_nothing.alpha, which fits no layer"):
        read(good | {"lora_unet_nothing.alpha": np.zeros(())})
    with pytest.raises(ValueError, match=r"holds .*hada_w1_a, which fits no layer"):
        read(good | {name.replace("lora_up.weight", "hada_w1_a"): np.zeros((2, 2))})
    with pytest.raises(ValueError, match=r"lacks the up part of unet\..*attn2.to_k"):
        read({key: array for key, array in good.items() if key != name})
    with pytest.raises(ValueError, match=r"attn2.to_k in .* has shapes .* and the model's \(8, 12\); this adapter"):
        read(good | {key: np.zeros((2, 13), np.float32) for key in good if key.endswith("lora_down.weight")})
    with pytest.raises(ValueError, match="fits no layer of the model; this adapter is for another base model"):
        read(dialects.kohya(tiny.adapter(sdxl), original=True)[0])
    with pytest.raises(ValueError, match="changes layers of ResnetBlock2D"):
        read({"unet:0:up": np.zeros((8, 1))}, {"unet": '["ResnetBlock2D"]'})
    by_input = tiny.adapter(sd, only="ff.net.2", dora=True)
    factors = next(iter(by_input["unet"].values()))
    with pytest.raises(ValueError, match="which peft does not know"):
        lora.write(tmp_path / "y", {"unet": {"x": factors._replace(dora_scale=factors.dora_scale.T)}})
    half = {"x": factors, "y": factors._replace(dora_scale=None)}
    with pytest.raises(ValueError, match=r"unet.y has no DoRA, and others have, which peft cannot mix; merge it"):
        lora.write(tmp_path / "y", {"unet": half})
    with pytest.raises(ValueError, match=r"unet.x has a difference, and a file of peft.s LoRA cannot hold it; merge"):
        lora.write(tmp_path / "y", {"unet": {"x": methods.Whole(np.ones(3))}})
    with pytest.raises(ValueError, match="changes no layer, and there is nothing to save"):
        lora.write(tmp_path / "y", {"unet": {}})
