"""LoRA files in the dialects that people have, read into one form, and written in that of peft.

diffusers     unet.down_blocks.0...attn1.processor.to_q_lora.down.weight, or ...attn1.to_q.lora.down.weight,
              text_encoder...q_proj.lora_linear_layer.down.weight
peft          unet.down_blocks.0...attn1.to_q.lora_A.weight, the alphas in the file's metadata or beside it;
              base_model.model.down_blocks.0...hada_w1_a and lokr_w1 of LoHa and LoKr
kohya         lora_unet_down_blocks_0_..._attn1_to_q.lora_down.weight with .alpha, .lora_mid.weight (LyCORIS)
              and .dora_scale; lora_unet_input_blocks_4_1_... for SDXL; lora_te_..., lora_te1_..., lora_te2_...
LyCORIS       kohya's names, or lycoris_ in front, with .hada_w1_a, .lokr_w1, .diff, .diff_b, .w_norm, .b_norm, .scalar
ComfyUI       diffusion_model.input_blocks.4.1...lora_up.weight, text_encoders.clip_l.transformer...
XLabs         double_blocks.0.processor.qkv_lora1.down.weight
cloneofsimo   unet:0:down, where the number counts the linear layers of attention

Which layer a name means is looked up among those of the model, so that nothing is guessed. Those of transformers
have their original names too (`convert.original_transformers`), as ai-toolkit and kohya's trainers write them:
diffusion_model.double_blocks.0.img_attn.qkv..., lora_unet_double_blocks_0_img_attn_qkv...
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convert import adapters, lora_names, methods, original_transformers, peft, safetensors, weights
from convert.lora_names import CURE, Shapes
from convert.methods import Change, Factors, Whole
from convert.tensors import Tensor

Adapter = dict[str, dict[str, Change]]  # component ("unet", "text_encoder", "text_encoder_2") -> parameter -> change


def read(file: Path, shapes: Shapes) -> Adapter:
    """The adapter in a .safetensors or .bin file, for a model with parameters of those shapes.

    Raises ValueError for a tensor that no parameter takes, for one of another shape or given twice, for a file
    without any, and for one that is relative to a base which it does not hold.
    """
    found, metadata = weights.tensors(file), adapters.metadata(file)
    words = {name for name, value in metadata.items() if value == "<embed>"}  # of textual inversion
    names = [name for name in found if name not in words and not lora_names.BUNDLED.fullmatch(name)]
    config = peft.read(file, metadata)
    stacks = {component: original_transformers.stacks(known) for component, known in shapes.items()}
    known = {
        component: {name: original_transformers.shape(stack, today) for name, stack in stacks[component].items()}
        | dict(today)
        for component, today in shapes.items()
    }
    parts: dict[tuple[str, str], dict[str, str]] = {}  # (component, layer) -> part -> the tensor's name
    for name, (component, layer, part) in lora_names.places(names, known, metadata, file).items():
        named = parts.setdefault((component, layer), {})
        if part in named:
            raise ValueError(f"{file} holds the {part} part of {component}.{layer} twice, also as {name}; keep one.")
        named[part] = name
    if not parts:
        raise ValueError(f"{file} holds no layer of a LoRA; choose another file.")
    adapter: Adapter = {}
    for (component, layer), named in parts.items():
        kinds = {kind: name for part, name in named.items() if (kind := methods.method(part))}
        if len(kinds) > 1:
            kind, name = max(kinds.items(), key=lambda item: item[0] != "LoRA")
            raise ValueError(f"{file} holds {name}, which fits no layer of another method than {kind}; keep one.")
        arrays = {part: _numbers(found[name], part == "alpha", name, file) for part, name in named.items()}
        if lacking := methods.missing(arrays):
            raise ValueError(f"{file} lacks the {lacking} part of {component}.{layer}; download or copy it again.")
        if more := methods.surplus(arrays):
            raise ValueError(f"{file} holds {named[more]}, which goes with no other part there; download it again.")
        changes = _changes(arrays, known[component], component, layer, config, file)
        changes = _today(changes, shapes[component], stacks[component], f"{component}.{layer} in {file}")
        taken = adapter.setdefault(component, {})
        if twice := taken.keys() & changes.keys():
            raise ValueError(f"{file} holds two changes of {component}.{twice.pop()}; keep one.")
        taken |= changes
    return adapter


def _numbers(tensor: Tensor, whole: bool, name: str, file: Path) -> np.ndarray:
    """What a tensor holds. ValueError for integers where only weights can be, for booleans and complex numbers."""
    if tensor.dtype.kind in ("bc" if whole else "biuc"):
        raise ValueError(f"{file} holds {name} as {tensor.dtype}, which is no weight; download it again.")
    return tensor.read()


def _changes(
    arrays: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    component: str,
    layer: str,
    config: Mapping[str, Any],
    file: Path,
) -> dict[str, Change]:
    """What the parts of a layer say of its weight, and, with a bias behind the factors, of its bias."""
    alpha, scalar = (_number(arrays.get(part), part, f"{component}.{layer} in {file}") for part in ("alpha", "scalar"))
    rank = methods.rank(arrays)
    if alpha is None:  # peft keeps it in its config, and divides by the rank even where both matrices are whole
        rank = peft.rank(config, component, layer) if rank is None and "lokr_w1" in arrays else rank
        alpha = peft.alpha(config, component, layer, rank or 1)
    shape = shapes[layer]
    try:
        one = methods.strengthened(methods.change(arrays, shape), alpha, rank, 1.0 if scalar is None else scalar)
    except ValueError as error:
        raise ValueError(f"{component}.{layer} in {file} {error} and the model's {shape}; {CURE}.") from error
    found: dict[str, Change] = {layer: one}
    if "bias" in arrays and isinstance(one, Factors):
        bias, wanted = arrays["bias"], shapes.get(f"{layer}.bias")
        if bias.shape != wanted:
            has = f"a bias of shape {bias.shape} and the model {'no bias there' if wanted is None else wanted}"
            raise ValueError(f"{component}.{layer} in {file} has {has}; {CURE}.")
        found[f"{layer}.bias"] = Whole(bias, one.alpha / one.rank)
    return found


def _today(
    changes: Mapping[str, Change],
    shapes: Mapping[str, tuple[int, ...]],
    stacks: Mapping[str, tuple[original_transformers.Rows, ...]],
    where: str,
) -> dict[str, Change]:
    """The changes of parameters of today, which those of the original are stacks of."""
    found: dict[str, Change] = {}
    for name, change in changes.items():
        if name in shapes:
            found[name] = change
            continue
        for today, rows in original_transformers.places(stacks[name]).items():
            try:
                found[today] = methods.taken(change, rows)
            except ValueError as error:
                raise ValueError(f"{where} {error}, whose parts fdiff cannot tell apart; merge it there.") from error
    return found


def _number(array: np.ndarray | None, part: str, where: str) -> float | None:
    if array is None:
        return None
    if array.size != 1 or not np.isfinite(array.item()):
        given = array.item() if array.size == 1 else f"of shape {array.shape}"
        raise ValueError(f"the {part} of {where} is {given}, not a number; download it again.")
    return float(array.item())


def write(file: Path, adapter: Adapter) -> None:
    """Write a .safetensors file in the dialect of peft, as diffusers saves it, the alphas in its metadata.

    Raises ValueError for no layer at all, for what is no LoRA, for a dora_scale that peft does not have, and for a
    DoRA of some layers.
    """
    arrays: dict[str, np.ndarray] = {}
    config: dict[str, Any] = {}
    for component, layers in adapter.items():
        plain = [layer for layer, factors in layers.items() if factors.dora_scale is None]
        if plain and len(plain) < len(layers):
            raise ValueError(f"{component}.{plain[0]} has no DoRA, and others have, which peft cannot mix; merge it.")
        factors_of: dict[str, Factors] = {}
        for layer, factors in layers.items():
            name = f"{component}.{layer}"
            if not isinstance(factors, Factors):
                kind = methods.name(factors)
                raise ValueError(f"{name} has a {kind}, and a file of peft's LoRA cannot hold it; merge it.")
            factors_of[layer] = factors
            arrays |= {f"{name}.lora_A.weight": factors.down, f"{name}.lora_B.weight": factors.up}
            if (dora := factors.dora_scale) is not None:
                if dora.shape[0] == 1:
                    raise ValueError(f"{name} has a dora_scale for each input, which peft does not know; merge it.")
                arrays[f"{name}.lora_magnitude_vector"] = dora.reshape((-1,) if dora.ndim == 2 else (1, -1, 1, 1))
        described = peft.describe(factors_of) if factors_of else {}
        config |= {f"{component}.{key}": value for key, value in described.items()}
    if not arrays:
        raise ValueError("the adapter changes no layer, and there is nothing to save; load one first.")
    ready = {}
    for name, array in arrays.items():
        wide = np.dtype(np.float16 if array.dtype == np.float16 else np.float32)  # bfloat16 is not for peft's readers
        ready[name] = safetensors.Array(array.shape, wide, functools.partial(np.asarray, array, wide))
    safetensors.write(file, ready, {peft.METADATA: json.dumps(config, sort_keys=True)})
