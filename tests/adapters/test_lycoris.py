"""LoHa, LoKr, differences and norms beside LyCORIS: merged, and while the network runs."""

import numpy as np
import pytest

from convert import safetensors
from fdiff.adapters import lora
from tests.adapters import live

pytestmark = pytest.mark.parity

TRAINED = {
    "LoHa": {"algo": "loha"},
    "LoHa, Tucker": {"algo": "loha", "use_tucker": True},
    "LoKr": {"algo": "lokr", "factor": 2},
    "LoKr, both factored, Tucker": {"algo": "lokr", "factor": 4, "decompose_both": True, "use_tucker": True,
                                    "linear_dim": 1},
    "LoKr, whole": {"algo": "lokr", "full_matrix": True},
    "differences": {"algo": "full"},
    "LoRA, Tucker, with norms": {"algo": "locon", "use_tucker": True, "train_norm": True},
    "DoRA": {"algo": "locon", "dora_wd": True},
    "DoRA by inputs": {"algo": "locon", "dora_wd": True, "wd_on_output": False},
    "LoHa with DoRA": {"algo": "loha", "dora_wd": True},
    "LoKr with DoRA": {"algo": "lokr", "factor": 2, "dora_wd": True},
}  # fmt: skip


def wrapped(unet, options):
    """LyCORIS' network around a U-Net, with random numbers in it."""
    lycoris, torch = pytest.importorskip("lycoris"), pytest.importorskip("torch")
    network = lycoris.create_lycoris(
        unet, 1.0, **({"linear_dim": 2, "linear_alpha": 3, "conv_dim": 2, "conv_alpha": 1, "preset": "full"} | options)
    )
    live.randomize(torch.nn.ModuleList(network.loras))
    network.apply_to()
    return network


def saved(state, file, prefix="lycoris_"):
    arrays = {
        name.replace("lycoris_", prefix, 1): np.ascontiguousarray(value.detach().numpy())
        for name, value in state.items()
    }
    ready = {name: safetensors.Array(array.shape, array.dtype, lambda a=array: a) for name, array in arrays.items()}
    safetensors.write(file, ready, {})
    return file


@pytest.mark.parametrize("options", TRAINED.values(), ids=TRAINED)
def test_against_lycoris(tmp_path, options):
    unet, model, params = live.unet(tmp_path)
    before, _ = live.predictions(unet, model, params, {})
    network = wrapped(unet, options)
    file = saved(network.state_dict(), tmp_path / "x.safetensors")
    adapter = lora.load(file, {"unet": params})
    assert len(adapter["unet"]) >= len(network.loras) > 50
    merged, _ = lora.merge({"unet": params}, adapter)
    pair = live.predictions(unet, model, merged["unet"], {})
    assert np.abs(pair[0] - before).max() > 0.01
    live.assert_close(pair)
    if "dora_wd" not in options:
        network.set_multiplier(-0.5)
        edits = lora.collection({"unet": params}, (adapter, -0.5))
        live.assert_close(live.predictions(unet, model, params, edits["unet"]))


def test_scalars_of_older_files(tmp_path):
    """They were saved beside the factors; now they are multiplied into one of them."""
    for options in ({"algo": "loha"}, {"algo": "lokr", "full_matrix": True}, {"algo": "locon"}):
        unet, model, params = live.unet(tmp_path)
        network = wrapped(unet, options | {"use_scalar": True})
        state = dict(network.named_parameters()) | dict(network.named_buffers())
        state = {name: value for name, value in state.items() if not name.endswith("dtype_tensor")}
        assert any(name.endswith(".scalar") and abs(value.item()) > 0.01 for name, value in state.items())
        adapter = lora.load(saved(state, tmp_path / "x.safetensors", "lora_unet_"), {"unet": params})
        merged, _ = lora.merge({"unet": params}, adapter)
        live.assert_close(live.predictions(unet, model, merged["unet"], {}))
