"""LoHa, LoKr and LoRA beside peft: what its files add, and which are relative to a base that they do not hold."""

import json

import numpy as np
import pytest

from fdiff.adapters import lora
from tests.adapters import live

pytestmark = pytest.mark.parity

CONFIGS = {
    "LoHa": ("LoHaConfig", {"use_effective_conv2d": False}),
    "LoHa, effective": ("LoHaConfig", {"use_effective_conv2d": True}),
    "LoKr": ("LoKrConfig", {"use_effective_conv2d": False, "decompose_factor": 2}),
    "LoKr, effective": ("LoKrConfig", {"use_effective_conv2d": True, "decompose_both": True, "r": 1}),
    "LoKr, whole": ("LoKrConfig", {"r": 64, "rank_pattern": {"attn1.to_k": 32}}),
    "LoRA with biases": ("LoraConfig", {"lora_bias": True, "target_modules": ["to_out.0", "conv1", "proj_in"]}),
}


@pytest.mark.parametrize(("name", "options"), CONFIGS.values(), ids=CONFIGS)
def test_against_peft(tmp_path, name, options):
    peft = pytest.importorskip("peft")
    unet, model, params = live.unet(tmp_path)
    pattern = {"attn1.to_q": 5, r".*conv1": 2}
    alpha = {"lora_alpha" if name == "LoraConfig" else "alpha": 3, "alpha_pattern": pattern}
    targets = ["to_q", "to_k", "to_out.0", "conv1", "conv_shortcut", "proj_in", "ff.net.2"]
    wrapper = peft.get_peft_model(
        unet, getattr(peft, name)(**({"r": 2, "target_modules": targets} | alpha | options))
    )
    live.randomize(wrapper)
    wrapper.save_pretrained(tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["peft_type"] in name.upper()
    adapter = lora.load(tmp_path / "adapter", {"unet": params})
    merged, _ = lora.merge({"unet": params}, adapter)
    live.assert_close(live.predictions(unet, model, merged["unet"], {}))
    edits = lora.collection({"unet": params}, adapter)
    live.assert_close(live.predictions(unet, model, params, edits["unet"]))


def linear(start):
    """(peft's wrapper of one linear layer that begins so, the layer's weight before it)."""
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    torch.manual_seed(0)
    base = torch.nn.Sequential(torch.nn.Linear(8, 8))
    before = base[0].weight.detach().numpy().copy()
    config = peft.LoraConfig(r=2, lora_alpha=3, init_lora_weights=start, target_modules=["0"])
    if start == "corda":
        pytest.importorskip("attr")  # which peft imports there and does not bring
        from peft.tuners.lora.corda import preprocess_corda

        config.corda_config = peft.tuners.lora.config.CordaConfig(corda_method="kpm")
        preprocess_corda(base, config, run_model=lambda: base(torch.randn(64, 8)))
    return peft.get_peft_model(base, config), before


STARTS = (True, False, "gaussian", "eva", "orthogonal", "mica", "pissa", "pissa_niter_4", "olora", "corda")


@pytest.mark.parametrize("start", STARTS)
def test_what_peft_takes_from_the_base_is_refused_and_nothing_else(tmp_path, start):
    wrapper, before = linear(start)
    layer = wrapper.base_model.model[0]
    moved = not np.array_equal(layer.base_layer.weight.detach().numpy(), before)
    wrapper.save_pretrained(tmp_path)
    params = {"unet": {"0": {"kernel": before.T}}}
    if moved:
        with pytest.raises(ValueError, match=f"init_lora_weights .* is '{start}': .* is relative to a base"):
            lora.load(tmp_path, params)
    else:
        merged, _ = lora.merge(params, lora.load(tmp_path, params))
        want = before + layer.get_delta_weight("default").detach().numpy()
        np.testing.assert_allclose(merged["unet"]["0"]["kernel"].T, want, atol=1e-6)


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_the_cure_of_those_that_are_relative(tmp_path, start):
    wrapper, before = linear(start)
    wrapper.peft_config["default"].init_lora_weights = True  # as peft's documentation has it
    wrapper.save_pretrained(tmp_path / "initial")
    wrapper.peft_config["default"].init_lora_weights = start
    live.randomize(wrapper)
    wrapper.save_pretrained(tmp_path / "x", path_initial_model_for_weight_conversion=str(tmp_path / "initial"))
    params = {"unet": {"0": {"kernel": before.T}}}
    merged, _ = lora.merge(params, lora.load(tmp_path / "x", params))
    layer = wrapper.base_model.model[0]
    want = (layer.base_layer.weight + layer.get_delta_weight("default")).detach().numpy()
    np.testing.assert_allclose(merged["unet"]["0"]["kernel"].T, want, atol=1e-5)
