"""Where the tensors of LoRA files belong: the names of every dialect, looked up among the layers of the model."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from convert import original, unet_order

Shapes = Mapping[str, Mapping[str, tuple[int, ...]]]  # component -> parameter -> its shape in torch
Place = tuple[str, str, str]  # component, parameter, part

CURE = "this adapter is for another base model"

# The end of a tensor's name, behind that of its layer.
ENDING = re.compile(
    r"([._]lora[._](?P<which>down|up|mid)\.weight"
    r"|\.lora_linear_layer\.(?P<linear>down|up)\.weight"
    r"|\.lora_(?P<peft>[AB])(\.\w+)?\.weight"
    r"|\.lora_B(\.\w+)?\.(?P<bias>bias)"
    r"|([._]lora)?\.(?P<alpha>alpha)"
    r"|\.(?P<dora>dora_scale|lora_magnitude_vector)(\.\w+)*"  # the second always for each output
    r"|\.(?P<other>hada_(w[12]_[ab]|t[12])|lokr_(w[12](_[ab])?|t2))(\.\w+)?"
    r"|\.(?P<scalar>scalar)"
    r"|\.(?P<weight>diff|w_norm)"
    r"|\.(?P<shift>diff_b|b_norm))$"
)
PARTS = {"A": "down", "B": "up", "w_norm": "diff", "diff_b": "shift", "b_norm": "shift"}
PREFIXES = {  # the component that is meant: the first of those that the model has
    "lora_unet_": ("unet", "transformer"),
    "lora_transformer_": ("transformer",),
    "lora_te_": ("text_encoder",),
    "lora_te1_": ("text_encoder",),
    "lora_te2_": ("text_encoder_2",),
    "lora_te3_": ("text_encoder_3", "text_encoder_2"),  # T5, which is the second one of FLUX.1
    "text_encoders.clip_l.transformer.": ("text_encoder",),
    "text_encoders.clip_h.transformer.": ("text_encoder",),
    "text_encoders.clip_g.transformer.": ("text_encoder_2",),
    "text_encoders.t5xxl.transformer.": ("text_encoder_3", "text_encoder_2"),
    "diffusion_model.": ("",),  # a U-Net or a transformer
    "lycoris_": ("",),  # whichever model was trained
}
# XLabs' names of the layers of FLUX.1's blocks: those of pictures are 1, those of texts 2.
XLABS = re.compile(r"\.processor\.(?P<layer>qkv|proj)_lora(?P<stream>[12]?)\.(?P<which>down|up)\.weight$")
WRAPPERS = re.compile(r"(?<![^.])(base_model\.model|_orig_mod|module)\.")  # of peft, torch.compile and DataParallel
OLD_TEXT = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}

# Words that lie beside a LoRA, which is read without them.
BUNDLED = re.compile(r"bundle_emb\.(?P<word>.+)\.(?P<part>string_to_param\..*|clip_l|clip_g)")

# What the tensors of other methods are called, behind the names of their layers: patterns, and the methods' names.
REFUSED = {
    r"\.(oft_blocks|oft_diag|oft_[Rrs]|rescale)\b": "OFT",
    r"\.boft_\w+": "BOFT",
    r"\.([ab][12]|bm)\.weight$": "GLoRA",
    r"\.(glora_\w+)": "GLoRA",
    r"\.(on_input|ia3_l)\b": "IA3",
    r"\.(lambda_layer|[qp]_layer|base_[qp]|base_lambda)\b": "T-LoRA",
    r"\.(lora_E|lora_ranknum)\b": "AdaLoRA",
    r"\.lora_diag\b": "KaSA",
    r"\.lora_embedding_[AB]\b": "LoRA of embeddings",
    r"\.lora_A(\.\w+)?\.bias$": "LoRA with a bias inside",
    r"\.hra_u\b": "HRA",
    r"\.p?vera_lambda_[bd]\b": "VeRA",
    r"\.fourierft_spectrum\b": "FourierFT",
    r"\.randlora_\w+": "RandLoRA",
    r"\.vblora_\w+": "VB-LoRA",
    r"\.(miss|bone)_block\b": "MiSS",
    r"\.(adamss|beft|c3a|deft|delora|frod|gralora|hira|lily|ln_tuning|psoft|road|shira|unilora|waveft)_": r"peft's \1",
    r"\.(set_weight|reshape_weight)$": "whole weights",
    r"\.modules_to_save\b": "whole modules (modules_to_save)",
}


def places(found: Iterable[str], shapes: Shapes, metadata: Mapping[str, str], file: Path) -> dict[str, Place]:
    """(component, parameter, part) of each tensor. ValueError for one that no parameter takes.

    A parameter has its torch name without ".weight": "conv_in" is the weight of that layer, "conv_in.bias" its bias.
    """
    names = list(found)
    counted = _counted(shapes, metadata, file) if any(re.fullmatch(r"\w+:\d+:\w+", name) for name in names) else {}
    flat = {component: {name.replace(".", "_"): name for name in known} for component, known in shapes.items()}
    split = {name: _split(name, flat) for name in names}
    # A file of one model alone may not name it: the one that has all the layers, as a ControlNet has half a U-Net's.
    bare = {layer for component, layer, _ in split.values() if not component}
    order = sorted(flat, key=lambda component: component != "unet")
    one = max(order, key=lambda component: sum(_find(layer, flat[component]) is not None for layer in bare), default="")
    result = {}
    for name, (component, written, part) in split.items():
        component = component or one
        layer = _find(written, flat.get(component, {})) if part else None
        if layer and part == "shift":
            layer, part = f"{layer}.bias", "diff"
        place = counted.get(name) or (component, layer or "", part)
        if place[1] not in shapes.get(place[0], {}):
            tried = ((re.search(pattern, name), kind) for pattern, kind in REFUSED.items())
            kind = next((match.expand(kind) for match, kind in tried if match), None)
            raise ValueError(
                f"{file} holds {name}, which fits no layer of the model; {CURE}, or of another kind." if kind is None
                else f"{file} holds {name}, a part of {kind}, which is not supported; merge it where it was trained."
            )
        result[name] = place
    return result


def _split(name: str, components: Iterable[str]) -> Place:
    """(component or "" where it is not said, the layer as it is written, part or "" for none of a LoRA)."""
    name = XLABS.sub(_xlabs, name)
    ending = ENDING.search(name)
    if ending is None:
        return "", name, ""
    said = next(found for found in ending.groupdict().values() if found)
    rest = WRAPPERS.sub("", name[: ending.start()])
    known = set(components)
    prefixes = {f"{component}.": (component,) for component in known} | PREFIXES
    prefix = next((prefix for prefix in prefixes if rest.startswith(prefix)), "")
    meant = prefixes.get(prefix, ("",))
    component = next((one for one in meant if one in known), meant[0])
    return component, rest.removeprefix(prefix), PARTS.get(said, said)


def _xlabs(match: re.Match[str]) -> str:
    """The end of a name of XLabs' in the original's words."""
    layer, stream = match["layer"], {"1": "img_attn.", "2": "txt_attn.", "": ""}[match["stream"]]
    return f".{stream}{'linear2' if not stream and layer == 'proj' else layer}.lora_{match['which']}.weight"


def _find(layer: str, known: Mapping[str, str]) -> str | None:
    """The layer that a file means, of those that are known by their names with "_" for "."."""
    return next((known[spelling] for spelling in _spellings(layer) if spelling in known), None)


def _spellings(layer: str) -> Iterable[str]:
    """Every name of today, with "_" for ".", that a file may mean by a layer's name."""
    plain = layer.replace(".processor", "").replace(".", "_")
    yield plain
    yield f"{plain}_0"  # to_out is to_out.0
    yield f"{plain}_scale"  # what norms of the original are called
    yield original.unet(plain).replace(".", "_")
    for text in (plain, f"text_model_{plain}"):
        yield text
        for old, new in OLD_TEXT.items():
            if text.endswith(f"_self_attn_{old}"):
                yield text.removesuffix(old) + new


def _counted(shapes: Shapes, metadata: Mapping[str, str], file: Path) -> dict[str, Place]:
    """Where each tensor of a file of cloneofsimo's belongs: it counts layers in the order of diffusers 0.10."""
    known = {"CrossAttention", "Attention", "GEGLU", "CLIPAttention"}
    for component in ("unet", "text_encoder"):
        try:
            others = set(json.loads(metadata.get(component, "[]"))) - known
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{component} in the metadata of {file} is no JSON list; download it again.") from error
        if others:
            raise ValueError(f"{file} changes layers of {sorted(others)[0]}, which is not supported; merge it there.")
    unet = shapes.get("unet", {})
    text = [layer for layer, shape in shapes.get("text_encoder", {}).items() if len(shape) > 1]
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
