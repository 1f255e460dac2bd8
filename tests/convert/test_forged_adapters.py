"""Files of adapters with one thing changed: each is read as what it says, or refused in a sentence."""

import json
import random
import warnings

import numpy as np
import pytest

from convert import lora, safetensors

SHAPES = {
    "unet": {"a.to_q": (8, 6), "a.to_q.bias": (8,), "a.conv": (8, 6, 3, 3), "a.conv.bias": (8,), "a.norm": (8,)},
    "text_encoder": {"t.q_proj": (4, 4)},
}
LAYERS = {
    "a.to_q": ("lora_unet_a_to_q", "unet.a.to_q", "base_model.model.a.to_q", "diffusion_model.a.to_q"),
    "a.conv": ("lora_unet_a_conv", "unet.a.conv", "lycoris_a_conv"),
    "t.q_proj": ("lora_te_t_q_proj",),
}
EXTRA = ("lora_mid.weight", "dora_scale", "hada_t1", "lokr_t2", "diff_b", "lora_B.bias", "oft_R")
NUMBERS = (None, 0, 1, -1, 2.5, "x", [], {}, {"to_q": 3}, {"(": 1}, True, float("nan"), 1e300, "pissa", {"to_q": None})
OPTIONS = ("r", "lora_alpha", "alpha", "alpha_pattern", "rank_pattern", "use_rslora", "init_lora_weights", "peft_type")


def parts(rng, out, size, *spatial):
    """The shapes of one layer's parts, by any method."""
    rank, ones, area = rng.randint(1, 3), (1,) * len(spatial), 9 if spatial else 1
    pairs = {"a": (out, rank), "b": (rank, size * area)}
    tucker = {"a": (rank, out), "b": (rank, size)}
    second = {"lokr_w2_a": (out // 2, rank), "lokr_w2_b": (rank, size // 2 * area)}
    kinds = [
        {"lora_down.weight": (rank, size, *spatial), "lora_up.weight": (out, rank, *ones)},
        {"lora_A.weight": (rank, size, *spatial), "lora_B.weight": (out, rank, *ones)},
        {f"hada_w{i}_{side}": shape for i in (1, 2) for side, shape in pairs.items()},
        {"lokr_w1": (2, 2), "lokr_w2": (out // 2, size // 2, *spatial)},
        {"lokr_w1_a": (2, rank), "lokr_w1_b": (rank, 2)} | second,
        {"diff": (out, size, *spatial)},
    ]
    if spatial:
        kinds.append({f"hada_w{i}_{side}": shape for i in (1, 2) for side, shape in tucker.items()}
                     | {f"hada_t{i}": (rank, rank, *spatial) for i in (1, 2)})
        kinds.append({"lokr_w1": (2, 2), "lokr_w2_a": (rank, out // 2), "lokr_w2_b": (rank, size // 2),
                      "lokr_t2": (rank, rank, *spatial)})
    found = dict(rng.choice(kinds))
    for extra in ("alpha", "scalar"):
        if rng.random() < 0.3:
            found[extra] = ()
    return found


def forged(rng):
    """({tensor: (shape, dtype)}, adapter_config.json, whether they are as they should be)."""
    tensors, config, changed = {}, {}, False
    for layer in rng.sample(sorted(LAYERS), rng.randint(1, 2)):
        shape = SHAPES["text_encoder" if layer.startswith("t.") else "unet"][layer]
        found = {part: (size, "float32") for part, size in parts(rng, *shape).items()}
        one, how = rng.choice(sorted(found)), rng.choice(["", "", "shape", "drop", "add", "dtype"])
        if how == "shape":
            found[one] = (tuple(rng.choice((0, 1, 2, 3, 6, 8, 54)) for _ in range(rng.randint(0, 4))), "float32")
        elif how == "drop":
            del found[one]
        elif how == "add":
            found[rng.choice(EXTRA)] = (tuple(rng.choice((1, 2, 8)) for _ in range(rng.randint(0, 4))), "float32")
        elif how == "dtype":
            found[one] = (found[one][0], rng.choice(["float16", "float64", "int64", "bool", "complex64"]))
        changed |= bool(how)
        prefix = rng.choice(LAYERS[layer])
        tensors |= {f"{prefix}.{part}": what for part, what in found.items()}
    if rng.random() < 0.2:
        config, changed = {option: rng.choice(NUMBERS) for option in rng.sample(OPTIONS, 2)}, True
    return tensors, config, not changed


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.fuzz)])
def test_forged_files(tmp_path, count):
    rng, numbers = random.Random(0), np.random.default_rng(0)
    read = 0
    file = tmp_path / "adapter_model.safetensors"
    for _ in range(count):
        tensors, config, right = forged(rng)
        ready = {}
        for name, (shape, dtype) in tensors.items():
            array = (3 * np.asarray(numbers.random(shape))).astype(dtype)
            ready[name] = safetensors.Array(array.shape, array.dtype, lambda array=array: array)
        safetensors.write(file, ready, {})
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found = lora.read(file, SHAPES)
        except ValueError as error:
            assert not right, (tensors, error)
            assert str(error).endswith(".") and "\n" not in str(error)
            continue
        read += 1
        for component, changes in found.items():
            for name, one in changes.items():
                assert one.shape == SHAPES[component][name], (tensors, name)
    assert count // 4 < read < count
