"""Diffusion transformers by the names that their authors gave: one table a family, read in both directions.

A parameter of the original is the rows of one of today's, or of several in a stack, such as "img_attn.qkv". Both are
called by their torch names without ".weight"; `*` is the number of a block. What a table does not name, has one name.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from convert import views

Shapes = Mapping[str, tuple[int, ...]]


class Rows(NamedTuple):
    """Some rows of a parameter of today."""

    name: str
    start: int
    stop: int


class Section(NamedTuple):
    """Names behind a prefix: those of the original, and those of today, several of which are a stack."""

    original: str
    today: str
    names: Mapping[str, str]


Table = tuple[Section, ...]

BLOCK, SINGLE = "transformer_blocks.*.", "single_transformer_blocks.*."
QKV, ADDED = "attn.to_q attn.to_k attn.to_v", "attn.add_q_proj attn.add_k_proj attn.add_v_proj"
EMBEDDERS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
STREAMS = {
    "img_attn.qkv": QKV,
    "txt_attn.qkv": ADDED,
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_attn.norm.query_norm.scale": "attn.norm_q",
    "img_attn.norm.key_norm.scale": "attn.norm_k",
    "txt_attn.norm.query_norm.scale": "attn.norm_added_q",
    "txt_attn.norm.key_norm.scale": "attn.norm_added_k",
}
NORMS = {"norm.query_norm.scale": "attn.norm_q", "norm.key_norm.scale": "attn.norm_k"}
FLUX: Table = (  # FLUX.1, and Chroma, whose guidance layer is in place of modulations
    Section("", "", EMBEDDERS),
    Section("time_in.", "time_text_embed.timestep_embedder.", {"in_layer": "linear_1", "out_layer": "linear_2"}),
    Section("vector_in.", "time_text_embed.text_embedder.", {"in_layer": "linear_1", "out_layer": "linear_2"}),
    Section("guidance_in.", "time_text_embed.guidance_embedder.", {"in_layer": "linear_1", "out_layer": "linear_2"}),
    Section("distilled_guidance_layer.layers.*.", "distilled_guidance_layer.layers.*.", {
        "in_layer": "linear_1", "out_layer": "linear_2",
    }),
    Section("distilled_guidance_layer.norms.*", "distilled_guidance_layer.norms.*", {".scale": ""}),
    Section("double_blocks.*.", BLOCK, {
        **STREAMS, "img_mod.lin": "norm1.linear", "txt_mod.lin": "norm1_context.linear",
        "img_mlp.0": "ff.net.0.proj", "img_mlp.2": "ff.net.2",
        "txt_mlp.0": "ff_context.net.0.proj", "txt_mlp.2": "ff_context.net.2",
    }),
    Section("single_blocks.*.", SINGLE, {
        **NORMS, "linear1": f"{QKV} proj_mlp", "linear2": "proj_out", "modulation.lin": "norm.linear",
    }),
)  # fmt: skip
FLUX2: Table = (
    Section("", "", {
        **EMBEDDERS,
        **{f"{name}.lin": f"{name}.linear" for name in (
            "double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation",
        )},
    }),
    Section("time_in.", "time_guidance_embed.timestep_embedder.", {"in_layer": "linear_1", "out_layer": "linear_2"}),
    Section("guidance_in.", "time_guidance_embed.guidance_embedder.", {
        "in_layer": "linear_1", "out_layer": "linear_2",
    }),
    Section("double_blocks.*.", BLOCK, {
        **STREAMS, "img_mlp.0": "ff.linear_in", "img_mlp.2": "ff.linear_out",
        "txt_mlp.0": "ff_context.linear_in", "txt_mlp.2": "ff_context.linear_out",
    }),
    Section("single_blocks.*.", SINGLE, {**NORMS, "linear1": "attn.to_qkv_mlp_proj", "linear2": "attn.to_out"}),
)  # fmt: skip
SD3: Table = (
    Section("", "", {
        "pos_embed": "pos_embed.pos_embed", "x_embedder.proj": "pos_embed.proj",
        "final_layer.linear": "proj_out", "final_layer.adaLN_modulation.1": "norm_out.linear",
    }),
    Section("t_embedder.mlp.", "time_text_embed.timestep_embedder.", {"0": "linear_1", "2": "linear_2"}),
    Section("y_embedder.mlp.", "time_text_embed.text_embedder.", {"0": "linear_1", "2": "linear_2"}),
    Section("joint_blocks.*.x_block.", BLOCK, {
        "attn.qkv": QKV, "attn.proj": "attn.to_out.0", "attn.ln_q": "attn.norm_q", "attn.ln_k": "attn.norm_k",
        "attn2.qkv": QKV.replace("attn", "attn2"), "attn2.proj": "attn2.to_out.0",
        "attn2.ln_q": "attn2.norm_q", "attn2.ln_k": "attn2.norm_k",
        "adaLN_modulation.1": "norm1.linear", "mlp.fc1": "ff.net.0.proj", "mlp.fc2": "ff.net.2",
    }),
    Section("joint_blocks.*.context_block.", BLOCK, {
        "attn.qkv": ADDED, "attn.proj": "attn.to_add_out",
        "attn.ln_q": "attn.norm_added_q", "attn.ln_k": "attn.norm_added_k",
        "adaLN_modulation.1": "norm1_context.linear",
        "mlp.fc1": "ff_context.net.0.proj", "mlp.fc2": "ff_context.net.2",
    }),
)  # fmt: skip
Z_IMAGE: Table = (
    Section("x_embedder", "all_x_embedder.2-1", {"": ""}),
    Section("final_layer.", "all_final_layer.2-1.", {name: name for name in ("linear", "adaLN_modulation.1")}),
    *(
        Section(f"{part}.*.attention.", f"{part}.*.attention.", {
            "qkv": "to_q to_k to_v", "out": "to_out.0", "q_norm": "norm_q", "k_norm": "norm_k",
        })
        for part in ("layers", "noise_refiner", "context_refiner")
    ),
)  # fmt: skip
KREA2_BLOCK = {
    **{f"attn.w{x}": f"attn.to_{x}" for x in "qkv"}, "attn.wo": "attn.to_out.0", "attn.gate": "attn.to_gate",
    "attn.qknorm.qnorm.scale": "attn.norm_q", "attn.qknorm.knorm.scale": "attn.norm_k",
    **{f"mlp.{name}": f"ff.{name}" for name in ("gate", "up", "down")},
    "prenorm.scale": "norm1", "postnorm.scale": "norm2",
}  # fmt: skip
KREA2: Table = (
    Section("", "", {
        "first": "img_in", "tmlp.0": "time_embed.linear_1", "tmlp.2": "time_embed.linear_2", "tproj.1": "time_mod_proj",
        "txtmlp.0.scale": "txt_in.norm", "txtmlp.1": "txt_in.linear_1", "txtmlp.3": "txt_in.linear_2",
        "txtfusion.projector": "text_fusion.projector", "last.linear": "final_layer.linear",
        "last.norm.scale": "final_layer.norm", "last.modulation.lin": "final_layer.scale_shift_table",
    }),
    Section("blocks.*.", BLOCK, {**KREA2_BLOCK, "mod.lin": "scale_shift_table"}),
    *(
        Section(f"txtfusion.{part}.*.", f"text_fusion.{part}.*.", KREA2_BLOCK)
        for part in ("layerwise_blocks", "refiner_blocks")
    ),
)  # fmt: skip
FLUX3_STREAMS = ("image", "image_cond", "txt")
FLUX3_BLOCK = {
    **{f"{x}_proj": f"attn.to_{x}" for x in "qkv"}, "attn_out": "attn.to_out.0",
    "norm.query_norm.scale": "attn.norm_q", "norm.key_norm.scale": "attn.norm_k",
    "mlp_in": "ff.linear_in", "mlp_out": "ff.linear_out",
}  # fmt: skip
FLUX3: Table = (
    Section("", "", {
        "txt_in": "context_embedder", "final_layer.image.linear": "proj_out",
        "final_layer.image.adaLN_modulation.1": "norm_out.linear",
        **{f"emb_in.{name}": f"x_embedders.{name}" for name in FLUX3_STREAMS[:2]},
        **{f"{part}_stream_modulations.{name}.lin": f"{part}_stream_modulations.{name}.linear"
           for part in ("early", "single") for name in FLUX3_STREAMS},
    }),
    Section("time_in.", "timestep_embedder.", {"in_layer": "linear_1", "out_layer": "linear_2"}),
    Section("ref_time_in.", "target_timestep_embedder.", {"in_layer": "linear_1", "out_layer": "linear_2"}),
    *(Section(f"content_mode_blocks.{name}.*.", f"mode_blocks.{name}.*.", FLUX3_BLOCK) for name in FLUX3_STREAMS[:2]),
    Section("txt_mode_blocks.*.", "txt_mode_blocks.*.", FLUX3_BLOCK),
    Section("single_blocks.*.", SINGLE, FLUX3_BLOCK),
)  # fmt: skip
QWEN_IMAGE21: Table = (Section(BLOCK, BLOCK, {"img_mlp.gate_up": "img_mlp.gate_layer img_mlp.proj"}),)
# By a parameter that only that family has.
FAMILIES = {
    "single_transformer_blocks.0.attn.to_qkv_mlp_proj": FLUX2,
    "single_transformer_blocks.0.proj_mlp": FLUX,
    "pos_embed.pos_embed": SD3,
    "all_x_embedder.2-1": Z_IMAGE,
    "text_fusion.projector": KREA2,
    "early_stream_modulations.image.linear": FLUX3,
    "txt_in.text_norm": QWEN_IMAGE21,
}
# The same in files, where a name says by which table they are read: the original's, or today's, which no table changes.
FILES: dict[str, Table] = {
    "single_stream_modulation.lin.weight": FLUX2,
    "double_blocks.0.img_attn.qkv.weight": FLUX,
    "joint_blocks.0.x_block.attn.qkv.weight": SD3,
    "layers.0.adaLN_modulation.0.weight": Z_IMAGE,
    "txtfusion.projector.weight": KREA2,
    "early_stream_modulations.image.lin.weight": FLUX3,
    **dict.fromkeys((f"{name}.weight" for name in FAMILIES if name != "pos_embed.pos_embed"), ()),
    "pos_embed.pos_embed": (),
    "txt_in.text_norm.weight": QWEN_IMAGE21,  # in both
    **dict.fromkeys(("txt_norm.weight", "layers.0.adaLN_sa_ln.weight"), ()),  # of Qwen-Image and ERNIE-Image, in both
}
# Stacks that only adapters have: XLabs' of single blocks, and those of models whose projections are fused.
STACKS: Table = (
    Section("single_blocks.*.", SINGLE, {"qkv": QKV}),
    Section(SINGLE, SINGLE, {"attn.to_qkv": QKV}),
    Section(BLOCK, BLOCK, {"attn.to_qkv": QKV, "attn.to_added_qkv": ADDED}),
)
SWAPPED = ("norm_out.linear", "norm1_context.linear")  # (shift, scale) in the original, (scale, shift) today


def originals(shapes: Shapes) -> dict[str, tuple[Rows, ...]]:
    """Every parameter of the original, and what it is a stack of, of a model with parameters of those shapes.

    Every row of the model is in it once. It is empty for a family without a table, whose names are today's.
    """
    table = next((table for name, table in FAMILIES.items() if name in shapes), None)
    if table is None:
        return {}
    found = _applied(table, shapes)
    named = {rows.name for stack in found.values() for rows in stack}
    return found | {name: (Rows(name, 0, shape[0]),) for name, shape in shapes.items() if name not in named}


def parameters(found: Mapping[str, Any], table: Table) -> dict[str, Any]:
    """The parameters of today that the tensors of an original hold, by their full names.

    A stack is cut into its rows; what the table does not name stays as it is. Raises ValueError, the beginning of a
    sentence, for a tensor that cannot be cut, and for a parameter that is there twice.
    """
    rules = {
        section.original + original: [section.today + name for name in names.split(" ")]
        for section in table for original, names in section.names.items()
    }  # fmt: skip
    made: dict[str, Any] = {}
    for name, tensor in found.items():
        layer, leaf = _leaf(name)
        pattern, block = _pattern(layer)
        stack = next((rules[one] for one in (layer, pattern, f"{pattern}.scale") if one in rules), None)
        if stack is None:
            parts: dict[str, Any] | None = {name: tensor}
        else:
            leaf = leaf or (".weight" if name.endswith(".scale") else "")
            wide = found.get(f"{layer}.weight", tensor).shape
            parts = _cut(tensor, [part.replace("*", block) + leaf for part in stack], wide[-1] if wide else 0)
        if parts is not None and name.endswith(".mod.lin") and len(tensor.shape) == 1:  # of Krea 2: six rows in one
            parts = {one: part._replace(shape=(6, part.shape[0] // 6)) for one, part in parts.items()}
        if parts is None:
            raise ValueError(f"{name} has shape {tensor.shape}, which it cannot have")
        if twice := sorted(parts.keys() & made.keys()):
            raise ValueError(f"{twice[0]} stands there twice, also as {name}")
        made |= parts
    return made


def _leaf(name: str) -> tuple[str, str]:
    """A parameter as a layer and its ".weight" or ".bias"; a name without one is the layer's whole."""
    leaf = next((leaf for leaf in (".weight", ".bias") if name.endswith(leaf)), "")
    return name.removesuffix(leaf), leaf


def _cut(tensor: Any, names: list[str], columns: int) -> dict[str, Any] | None:
    """The rows of a stack under the names of its parts, which have equal ones; of four, three have `columns` each."""
    shape = tensor.shape
    if len(names) == 1:
        layer = _leaf(names[0])[0]
        swaps = layer.endswith(SWAPPED) and len(shape) > 0 and shape[0] == 2 * columns
        return {names[0]: views.swapped(tensor) if swaps else tensor}
    rows = shape[0] if shape else 0
    sizes = [columns] * 3 + [rows - 3 * columns] if len(names) > 3 else [rows // len(names)] * len(names)
    if sum(sizes) != rows or min(sizes) < 1:
        return None
    ends = np.cumsum(sizes).tolist()
    return {
        name: views.rows(tensor, end - size, end) for name, size, end in zip(names, sizes, ends, strict=True)
    }


def stacks(shapes: Shapes) -> dict[str, tuple[Rows, ...]]:
    """Every parameter of the original as `originals` has it, and what adapters may change beside these."""
    found = originals(shapes)
    if not found:
        return {}
    beside = {name: stack for section in STACKS for name, stack in _applied((section,), shapes).items()}
    return beside | found


def shape(stack: tuple[Rows, ...], shapes: Shapes) -> tuple[int, ...]:
    """The shape of a parameter of the original."""
    return (sum(rows.stop - rows.start for rows in stack), *shapes[stack[0].name][1:])


def places(stack: tuple[Rows, ...]) -> dict[str, np.ndarray]:
    """Parameter of today -> which rows of the stack it is made of, in order."""
    found: dict[str, list[tuple[int, np.ndarray]]] = {}
    first = 0
    for name, start, stop in stack:
        last = first + stop - start
        found.setdefault(name, []).append((start, np.arange(first, last, dtype=np.int32)))
        first = last
    return {
        name: np.concatenate([rows for _, rows in sorted(parts, key=lambda part: part[0])])
        for name, parts in found.items()
    }


def _applied(table: Table, shapes: Shapes) -> dict[str, tuple[Rows, ...]]:
    """What the table says of the parameters that are there: weights and biases."""
    rules: dict[str, tuple[str, list[str]]] = {}
    for section in table:
        for original, names in section.names.items():
            stack = [section.today + name for name in names.split(" ")]
            rules[stack[0]] = (section.original + original, stack)
    found = {}
    for name in shapes:
        layer = name.removesuffix(".bias")
        leaf = name.removeprefix(layer)
        pattern, block = _pattern(layer)
        original, today = rules.get(layer) or rules.get(pattern) or ("", [])
        parts = [part.replace("*", block) + leaf for part in today]
        if parts and all(part in shapes for part in parts):
            found[original.replace("*", block) + leaf] = _stack(parts, shapes)
    return found


def _pattern(layer: str) -> tuple[str, str]:
    """A name with * in place of its first number, and that number."""
    number = re.search(r"\.(\d+)(?=\.|$)", layer)
    return (f"{layer[: number.start()]}.*{layer[number.end() :]}", number[1]) if number else (layer, "")


def _stack(names: list[str], shapes: Shapes) -> tuple[Rows, ...]:
    layer = names[0].removesuffix(".bias")
    rows = shapes[names[0]][0]
    if layer.endswith(SWAPPED) and rows == 2 * shapes[layer][1]:
        return Rows(names[0], rows // 2, rows), Rows(names[0], 0, rows // 2)
    return tuple(Rows(name, 0, shapes[name][0]) for name in names)
