"""LoRA files in the dialects that people have, read into one form, and written in that of peft.

diffusers     unet.down_blocks.0...attn1.processor.to_q_lora.down.weight, or ...attn1.to_q.lora.down.weight,
              text_encoder...q_proj.lora_linear_layer.down.weight
peft          unet.down_blocks.0...attn1.to_q.lora_A.weight, the alphas in the file's metadata or beside it
kohya         lora_unet_down_blocks_0_..._attn1_to_q.lora_down.weight with .alpha, .lora_mid.weight (LyCORIS)
              and .dora_scale; lora_unet_input_blocks_4_1_... for SDXL; lora_te_..., lora_te1_..., lora_te2_...
cloneofsimo   unet:0:down, where the number counts the linear layers of attention

Which layer a name means is looked up among those of the model, so that nothing is guessed.
"""

import functools
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from convert import adapters, original, peft, safetensors, unet_order, weights

Shapes = Mapping[str, Mapping[str, tuple[int, ...]]]  # component -> layer -> the shape of its weight in torch


class Factors(NamedTuple):
    """What is added to a layer's weight: alpha / rank * up @ down (Hu et al. 2022), in torch's layout.

    With a dora_scale the sum is then normalized, for each output or for each input, and multiplied by it
    (Liu et al. 2024).
    """

    down: np.ndarray  # (rank, in) or (rank, in, h, w)
    up: np.ndarray  # (out, rank) or (out, rank, 1, 1)
    alpha: float
    dora_scale: np.ndarray | None = None  # (out, 1) or (1, in), and (..., 1, 1) for convolutions

    @property
    def rank(self) -> int:
        """The number between down and up."""
        return self.down.shape[0]


Adapter = dict[str, dict[str, Factors]]  # component ("unet", "text_encoder", "text_encoder_2") -> layer -> factors

CURE = "this adapter is for another base model"

# The end of a tensor's name, behind that of its layer.
ENDING = re.compile(
    r"([._]lora[._](?P<which>down|up|mid)\.weight"
    r"|\.lora_linear_layer\.(?P<linear>down|up)\.weight"
    r"|\.lora_(?P<peft>[AB])(\.\w+)?\.weight"
    r"|([._]lora)?\.(?P<alpha>alpha)"
    r"|\.(?P<dora>dora_scale|lora_magnitude_vector)(\.\w+)*)$"  # the second always for each output
)
PREFIXES = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
}
OLD_TEXT = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


def read(file: Path, shapes: Shapes) -> Adapter:
    """The adapter in a .safetensors or .bin file, for a model with layers of those shapes.

    Raises ValueError for a tensor that no layer takes, for one of another shape or given twice, and for a file
    without any.
    """
    found, metadata = weights.tensors(file), adapters.metadata(file)
    embeddings = {name for name, value in metadata.items() if value == "<embed>"}  # of textual inversion
    config = peft.read(file, metadata)
    parts: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for name, place in _places([name for name in found if name not in embeddings], shapes, metadata, file).items():
        component, layer, part = place
        arrays = parts.setdefault((component, layer), {})
        if part in arrays:
            raise ValueError(f"{file} holds the {part} part of {component}.{layer} twice, also as {name}; keep one.")
        arrays[part] = found[name].read()
    if not parts:
        raise ValueError(f"{file} holds no layer of a LoRA; choose another file.")
    adapter: Adapter = {}
    for (component, layer), arrays in parts.items():
        missing = [part for part in ("down", "up") if part not in arrays]
        if missing:
            raise ValueError(f"{file} lacks the {missing[0]} part of {component}.{layer}; download or copy it again.")
        alpha = arrays.get("alpha")
        if alpha is not None and (alpha.size != 1 or not np.isfinite(alpha.item())):
            given = alpha.item() if alpha.size == 1 else f"of shape {alpha.shape}"
            raise ValueError(f"the alpha of {component}.{layer} in {file} is {given}, not a number; download it again.")
        shape = shapes[component][layer]
        try:
            factors = _factors(arrays, shape)
        except ValueError as error:
            raise ValueError(f"{component}.{layer} in {file} {error} and the model's {shape}; {CURE}.") from error
        said = peft.alpha(config, component, layer, factors.rank) if alpha is None else float(alpha.item())
        adapter.setdefault(component, {})[layer] = factors if said is None else factors._replace(alpha=float(said))
    return adapter


def _places(
    found: list[str], shapes: Shapes, metadata: Mapping[str, str], file: Path
) -> dict[str, tuple[str, str, str]]:
    """(component, layer, part) of each tensor. ValueError for one that no layer takes."""
    counted = _counted(shapes, metadata, file) if any(re.fullmatch(r"\w+:\d+:\w+", name) for name in found) else {}
    flat = {
        component: {layer.replace(".", "_"): layer for layer in layers} for component, layers in shapes.items()
    }
    split = {name: _split(name, flat) for name in found}
    # A file of one model alone may not name it: the one that has all the layers, as a ControlNet has half a U-Net's.
    bare = {layer for component, layer, _ in split.values() if not component}
    order = sorted(flat, key=lambda component: component != "unet")
    one = max(order, key=lambda component: sum(_find(layer, flat[component]) is not None for layer in bare), default="")
    places = {}
    for name, (component, written, part) in split.items():
        layer = _find(written, flat.get(component or one, {})) if part else None
        place = counted.get(name) or (layer and (component or one, layer, part))
        if not place:
            raise ValueError(f"{file} holds {name}, which fits no layer of the model; {CURE}, or of another kind.")
        places[name] = place
    return places


def _split(name: str, components: Iterable[str]) -> tuple[str, str, str]:
    """(component or "" where it is not said, the layer as it is written, part or "" for none of a LoRA)."""
    ending = ENDING.search(name)
    if ending is None:
        return "", name, ""
    part = ending["which"] or ending["linear"] or ending["alpha"] or ending["dora"]
    part = part or {"A": "down", "B": "up"}[ending["peft"]]
    rest = name[: ending.start()].removeprefix("base_model.model.")
    prefixes = {f"{component}.": component for component in components} | PREFIXES
    prefix = next((prefix for prefix in prefixes if rest.startswith(prefix)), "")
    return prefixes.get(prefix, ""), rest.removeprefix(prefix), part


def _find(layer: str, known: Mapping[str, str]) -> str | None:
    """The layer that a file means, of those that are known by their names with "_" for "."."""
    return next((known[spelling] for spelling in _spellings(layer) if spelling in known), None)


def _spellings(layer: str) -> Iterable[str]:
    """Every name of today, with "_" for ".", that a file may mean by a layer's name."""
    plain = layer.replace(".processor", "").replace(".", "_")
    yield plain
    yield f"{plain}_0"  # to_out is to_out.0
    yield original.unet(plain).replace(".", "_")
    for text in (plain, f"text_model_{plain}"):
        yield text
        for old, new in OLD_TEXT.items():
            if text.endswith(f"_self_attn_{old}"):
                yield text.removesuffix(old) + new


def _counted(shapes: Shapes, metadata: Mapping[str, str], file: Path) -> dict[str, tuple[str, str, str]]:
    """Where each tensor of a file of cloneofsimo's belongs: it counts layers in the order of diffusers 0.10."""
    known = {"CrossAttention", "Attention", "GEGLU", "CLIPAttention"}
    for component in ("unet", "text_encoder"):
        try:
            others = set(json.loads(metadata.get(component, "[]"))) - known
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{component} in the metadata of {file} is no JSON list; download it again.") from error
        if others:
            raise ValueError(f"{file} changes layers of {sorted(others)[0]}, which is not supported; merge it there.")
    unet, text = shapes.get("unet", {}), shapes.get("text_encoder", {})
    inside = [f"attn{i}.{leaf}" for i in (1, 2) for leaf in ("to_q", "to_k", "to_v", "to_out.0")]
    inside.insert(4, "ff.net.0.proj")
    layers = {
        "unet": [f"{block}.{leaf}" for block in unet_order.transformer_blocks(unet) for leaf in inside],
        "text_encoder": [
            f"{block}.{which}_proj"
            for block in unet_order.sort({layer.rpartition(".")[0] for layer in text if ".self_attn." in layer})
            for which in ("k", "v", "q", "out")
        ],
    }
    return {
        f"{component}:{i}:{part}": (component, layer, part)
        for component, names in layers.items()
        for i, layer in enumerate(names)
        for part in ("down", "up")
    }


def _factors(arrays: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> Factors:
    """Factors with the axes of the layer's weight. ValueError, the middle of a sentence, where shapes differ."""
    down, up = arrays["down"], arrays["up"]
    if down.ndim < 2 or up.ndim < 2 or 0 in (*down.shape, *up.shape):
        raise ValueError(f"has shapes {down.shape} and {up.shape}")
    if "mid" in arrays:  # a convolution between two of size 1: down and mid are one
        mid = arrays["mid"]
        if mid.ndim != 4 or mid.shape[:2] != (len(down), len(down)):
            raise ValueError(f"has a lora_mid of shape {mid.shape} beside {down.shape}")
        down = np.einsum("rshw,si->rihw", mid, down.reshape(down.shape[0], -1)).astype(down.dtype)
    rank = down.shape[0]
    ones = (1,) * (len(shape) - 2)
    if down.ndim == 2 or down.shape[2:] == (1, 1):
        down = down.reshape(*down.shape[:2], *ones)
    if up.ndim == 2 or up.shape[2:] == (1, 1):
        up = up.reshape(*up.shape[:2], *ones)
    if down.shape != (rank, *shape[1:]) or up.shape != (shape[0], rank, *ones):
        raise ValueError(f"has shapes {down.shape} and {up.shape}")
    return Factors(down, up, float(rank), _dora_scale(arrays, shape))


def _dora_scale(arrays: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> np.ndarray | None:
    """The numbers by outputs or by inputs, which the shape tells in all dialects but peft's."""
    scale = arrays.get("lora_magnitude_vector", arrays.get("dora_scale"))
    if scale is None:
        return None
    by_input = "dora_scale" in arrays and scale.ndim > 1 and scale.shape[:2] == (1, shape[1])
    if scale.size != shape[1 if by_input else 0]:
        raise ValueError(f"has a dora_scale of shape {scale.shape}")
    ones = (1,) * (len(shape) - 2)
    return scale.reshape(*((1, -1) if by_input else (-1, 1)), *ones)


def write(file: Path, adapter: Adapter) -> None:
    """Write a .safetensors file in the dialect of peft, as diffusers saves it, the alphas in its metadata.

    Raises ValueError for no layer at all, for a dora_scale that peft does not have, and for a DoRA of some layers.
    """
    arrays: dict[str, np.ndarray] = {}
    config: dict[str, Any] = {}
    for component, layers in adapter.items():
        plain = [layer for layer, factors in layers.items() if factors.dora_scale is None]
        if plain and len(plain) < len(layers):
            raise ValueError(f"{component}.{plain[0]} has no DoRA, and others have, which peft cannot mix; merge it.")
        for layer, factors in layers.items():
            name = f"{component}.{layer}"
            arrays |= {f"{name}.lora_A.weight": factors.down, f"{name}.lora_B.weight": factors.up}
            if (dora := factors.dora_scale) is not None:
                if dora.shape[0] == 1:
                    raise ValueError(f"{name} has a dora_scale for each input, which peft does not know; merge it.")
                arrays[f"{name}.lora_magnitude_vector"] = dora.reshape((-1,) if dora.ndim == 2 else (1, -1, 1, 1))
        config |= {f"{component}.{key}": value for key, value in (peft.describe(layers) if layers else {}).items()}
    if not arrays:
        raise ValueError("the adapter changes no layer, and there is nothing to save; load one first.")
    ready = {}
    for name, array in arrays.items():
        wide = np.dtype(np.float16 if array.dtype == np.float16 else np.float32)  # bfloat16 is not for peft's readers
        ready[name] = safetensors.Array(array.shape, wide, functools.partial(np.asarray, array, wide))
    safetensors.write(file, ready, {peft.METADATA: json.dumps(config, sort_keys=True)})
