"""One adapter written in every dialect: the inverse of what is tested."""

import json
import re

import numpy as np

from tests.convert import original_names

KOHYA = {"unet": "lora_unet_", "text_encoder": "lora_te_", "text_encoder_2": "lora_te2_"}


def entries(adapter):
    return [
        (component, layer, factors) for component, layers in adapter.items() for layer, factors in layers.items()
    ]


def diffusers_old(adapter):
    """As diffusers wrote attention processors before 0.22; other layers it could not have."""
    found = {}
    for component, layer, factors in entries(adapter):
        module, _, leaf = layer.replace("to_out.0", "to_out").rpartition(".")
        if component == "unet":
            name = f"unet.{module}.processor.{leaf}_lora"
        else:
            leaf = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}[leaf]
            name = f"{component}.{module}.{leaf}_lora"
        found |= {f"{name}.down.weight": factors.down, f"{name}.up.weight": factors.up}
    return found, {}


def diffusers_new(adapter):
    found = {}
    for component, layer, factors in entries(adapter):
        name = f"{component}.{layer}." + ("lora" if component == "unet" else "lora_linear_layer")
        found |= {f"{name}.down.weight": factors.down, f"{name}.up.weight": factors.up}
    return found, {}


def peft(adapter):
    found, config = {}, {}
    for component, layer, factors in entries(adapter):
        name = f"{component}.{layer}"
        found |= {f"{name}.lora_A.weight": factors.down, f"{name}.lora_B.weight": factors.up}
        config |= {f"{component}.r": factors.rank, f"{component}.lora_alpha": factors.alpha}
        config.setdefault(f"{component}.target_modules", []).append(layer.removeprefix("text_model."))
    return found, {"lora_adapter_metadata": json.dumps(config)}


def kohya(adapter, *, original=False, te1=False):
    """With alphas; with the names of SDXL's own code where `original`."""
    found = {}
    names = {f"{layer}.weight": layer for layer in adapter.get("unet", {})}
    # The first attention of every block tells upsamplers apart, whether or not it is adapted.
    blocks = {layer.split(".attentions.")[0] for layer in names if ".attentions." in layer}
    names |= {f"{block}.attentions.0.norm.weight": "" for block in blocks}
    old = {layer: name.removesuffix(".weight") for name, layer in original_names.unet(names).items()}
    for component, layer, factors in entries(adapter):
        prefix = "lora_te1_" if te1 and component == "text_encoder" else KOHYA[component]
        written = old[layer] if original and component == "unet" else layer
        name = prefix + written.replace(".", "_")
        found |= {f"{name}.lora_down.weight": factors.down, f"{name}.lora_up.weight": factors.up}
        found[f"{name}.alpha"] = np.asarray(factors.alpha, np.float32)
        if factors.dora_scale is not None:
            found[f"{name}.dora_scale"] = factors.dora_scale
    return found, {}


def cloneofsimo(adapter):
    """Numbered in the order of diffusers 0.10, where ff stood between the attentions."""
    order = ["attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj"]
    order += ["attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0", "k_proj", "v_proj", "q_proj", "out_proj"]

    def place(layer):
        first = ["down", "up_b", "mid_"].index(layer[:4]) if layer[:4] in ("down", "up_b", "mid_") else 0
        leaf = next(i for i, end in enumerate(order) if layer.endswith(end))
        return first, [int(number) for number in re.findall(r"\.(\d+)", layer.removesuffix(order[leaf]))], leaf

    found = {"<s1>": np.ones(12, np.float32)}
    for component, layers in adapter.items():
        for i, layer in enumerate(sorted(layers, key=place)):
            found |= {f"{component}:{i}:down": layers[layer].down, f"{component}:{i}:up": layers[layer].up}
    metadata = {"unet": '["CrossAttention", "GEGLU"]', "text_encoder": '["CLIPAttention"]', "<s1>": "<embed>"}
    return found, metadata


def write(file, dialect):
    arrays, metadata = dialect
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, file, metadata=metadata)
    return file
