"""What the authors of diffusion transformers called their parameters: one table a family, read in both directions.

A parameter of the original is one of today's, or several in a stack, such as "img_attn.qkv". Both are called by their
torch names without ".weight"; `*` is the number of a block. What a table does not name, has one name.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Section(NamedTuple):
    """Names behind a prefix: those of the original, and those of today, several of which are a stack; "" is none."""

    original: str
    today: str
    names: Mapping[str, str]


Table = tuple[Section, ...]

BLOCK, SINGLE = "transformer_blocks.*.", "single_transformer_blocks.*."
QKV, ADDED = "attn.to_q attn.to_k attn.to_v", "attn.add_q_proj attn.add_k_proj attn.add_v_proj"
EMBEDDER = {"in_layer": "linear_1", "out_layer": "linear_2"}
MLP = {"0": "linear_1", "2": "linear_2"}
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
    Section("time_in.", "time_text_embed.timestep_embedder.", EMBEDDER),
    Section("vector_in.", "time_text_embed.text_embedder.", EMBEDDER),
    Section("guidance_in.", "time_text_embed.guidance_embedder.", EMBEDDER),
    Section("distilled_guidance_layer.layers.*.", "distilled_guidance_layer.layers.*.", EMBEDDER),
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
    Section("time_in.", "time_guidance_embed.timestep_embedder.", EMBEDDER),
    Section("guidance_in.", "time_guidance_embed.guidance_embedder.", EMBEDDER),
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
    Section("t_embedder.mlp.", "time_text_embed.timestep_embedder.", MLP),
    Section("y_embedder.mlp.", "time_text_embed.text_embedder.", MLP),
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
    Section("time_in.", "timestep_embedder.", EMBEDDER),
    Section("ref_time_in.", "target_timestep_embedder.", EMBEDDER),
    *(Section(f"content_mode_blocks.{name}.*.", f"mode_blocks.{name}.*.", FLUX3_BLOCK) for name in FLUX3_STREAMS[:2]),
    Section("txt_mode_blocks.*.", "txt_mode_blocks.*.", FLUX3_BLOCK),
    Section("single_blocks.*.", SINGLE, FLUX3_BLOCK),
)  # fmt: skip
QWEN_IMAGE21: Table = (Section(BLOCK, BLOCK, {"img_mlp.gate_up": "img_mlp.gate_layer img_mlp.proj"}),)
REFINED = {
    "attention.qkv": QKV, "attention.out": "attn.to_out.0", "attention.q_norm": "attn.norm_q",
    "attention.k_norm": "attn.norm_k", **{f"feed_forward.w{i}": f"feed_forward.linear_{i}" for i in (1, 2, 3)},
    "attention_norm2": "norm2",
}  # fmt: skip
LUMINA2: Table = (
    Section("", "", {
        "cap_embedder.0": "time_caption_embed.caption_embedder.0",
        "cap_embedder.1": "time_caption_embed.caption_embedder.1",
        "final_layer.adaLN_modulation.1": "norm_out.linear_1", "final_layer.linear": "norm_out.linear_2",
    }),
    Section("t_embedder.mlp.", "time_caption_embed.timestep_embedder.", MLP),
    *(
        Section(f"{part}.*.", f"{part}.*.", {
            **REFINED, "attention_norm1": "norm1.norm", "adaLN_modulation.1": "norm1.linear",
        })
        for part in ("layers", "noise_refiner")
    ),
    Section("context_refiner.*.", "context_refiner.*.", {**REFINED, "attention_norm1": "norm1"}),
)  # fmt: skip
CAPTIONED = {  # PixArt and Sana; places and the words of an empty prompt, which are computed or not read
    "pos_embed": "", "y_embedder.y_embedding": "", "final_layer.linear": "proj_out",
    "final_layer.scale_shift_table": "scale_shift_table",
    "y_embedder.y_proj.fc1": "caption_projection.linear_1", "y_embedder.y_proj.fc2": "caption_projection.linear_2",
}  # fmt: skip
CROSS = {
    "scale_shift_table": "scale_shift_table", "attn.qkv": QKV.replace("attn", "attn1"),
    "attn.proj": "attn1.to_out.0", "cross_attn.q_linear": "attn2.to_q",
    "cross_attn.kv_linear": "attn2.to_k attn2.to_v", "cross_attn.proj": "attn2.to_out.0",
}  # fmt: skip
PIXART: Table = (
    Section("", "", {**CAPTIONED, "x_embedder.proj": "pos_embed.proj", "t_block.1": "adaln_single.linear"}),
    *(
        Section(f"{original}_embedder.mlp.", f"adaln_single.emb.{today}_embedder.", MLP)
        for original, today in (("t", "timestep"), ("csize", "resolution"), ("ar", "aspect_ratio"))
    ),
    Section("blocks.*.", BLOCK, {**CROSS, "mlp.fc1": "ff.net.0.proj", "mlp.fc2": "ff.net.2"}),
)
SPRINT: Table = (
    Section("", "", {
        **CAPTIONED, "x_embedder.proj": "patch_embed.proj", "t_block.1": "time_embed.linear",
        "attention_y_norm": "caption_norm", "logvar_linear": "",
    }),
    Section("t_embedder.mlp.", "time_embed.timestep_embedder.", MLP),
    Section("cfg_embedder.mlp.", "time_embed.guidance_embedder.", MLP),
    Section("blocks.*.", BLOCK, {
        **CROSS, "attn.q_norm": "attn1.norm_q", "attn.k_norm": "attn1.norm_k",
        "cross_attn.q_norm": "attn2.norm_q", "cross_attn.k_norm": "attn2.norm_k",
        **{f"mlp.{name}_conv.conv": f"ff.conv_{name}" for name in ("inverted", "depth", "point")},
    }),
)  # fmt: skip
SANA: Table = (
    *(section for section in SPRINT if section.original != "t_embedder.mlp."),
    Section("t_embedder.mlp.", "time_embed.emb.timestep_embedder.", MLP),
)
# By a parameter that only that family has.
FAMILIES = {
    "single_transformer_blocks.0.attn.to_qkv_mlp_proj": FLUX2,
    "single_transformer_blocks.0.proj_mlp": FLUX,
    "pos_embed.pos_embed": SD3,
    "all_x_embedder.2-1": Z_IMAGE,
    "text_fusion.projector": KREA2,
    "early_stream_modulations.image.linear": FLUX3,
    "txt_in.text_norm": QWEN_IMAGE21,
    "time_caption_embed.caption_embedder.1": LUMINA2,
    "time_embed.guidance_embedder.linear_1": SPRINT,
    "transformer_blocks.0.ff.conv_inverted": SANA,
    "adaln_single.linear": PIXART,
}
# The same in files, where a name says by which table they are read: the original's, or today's, which no table changes.
FILES: dict[str, Table] = {
    "single_stream_modulation.lin.weight": FLUX2,
    "double_blocks.0.img_attn.qkv.weight": FLUX,
    "joint_blocks.0.x_block.attn.qkv.weight": SD3,
    "layers.0.adaLN_modulation.0.weight": Z_IMAGE,
    "txtfusion.projector.weight": KREA2,
    "early_stream_modulations.image.lin.weight": FLUX3,
    "layers.0.adaLN_modulation.1.weight": LUMINA2,
    "cfg_embedder.mlp.0.weight": SPRINT,
    "blocks.0.mlp.inverted_conv.conv.weight": SANA,
    "blocks.0.cross_attn.q_linear.weight": PIXART,
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
