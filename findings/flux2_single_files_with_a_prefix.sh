#!/usr/bin/env bash
# Whole checkpoints of ComfyUI hold a transformer behind "model.diffusion_model.". diffusers reads such files of FLUX.1, Stable
# Diffusion 3, Chroma, Z-Image and others, and its own table of names, by which it tells what a file is, lists FLUX.2's with and
# without that prefix. One would guess that from_single_file reads both. Of FLUX.2 it reads the bare one alone: its converter, unlike
# those of the others, does not take the prefix off, takes the words of "model.diffusion_model.double_blocks.0..." for others, and
# stops at KeyError: 'double_blocks.0.img_attn.norm.key_norm', which says nothing of a prefix. Who saves a FLUX.2 checkpoint in
# ComfyUI has to rename its tensors first.
# diffusers 0.42.1, torch 2.13.0 (loaders/single_file_utils.py, CHECKPOINT_KEY_NAMES["flux2"] and
# convert_flux2_transformer_checkpoint_to_diffusers). Seen, for a tiny random model: the bare file has the weights that were saved,
# the same tensors behind the prefix end in that KeyError.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate safetensors
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import torch
from diffusers import Flux2Transformer2DModel
from diffusers.loaders.single_file_utils import CHECKPOINT_KEY_NAMES
from safetensors.torch import save_file

torch.manual_seed(0)
model = Flux2Transformer2DModel(
    in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=8,
    timestep_guidance_channels=8, axes_dims_rope=(2, 2, 2, 2), guidance_embeds=False,
)
model.save_config("config")
NAMES = {  # of today -> of Black Forest Labs
    "x_embedder": "img_in", "context_embedder": "txt_in", "proj_out": "final_layer.linear",
    "time_guidance_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_guidance_embed.timestep_embedder.linear_2": "time_in.out_layer",
    **{f"{x}.linear": f"{x}.lin" for x in
       ("double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation")},
    "transformer_blocks.0.attn.to_out.0": "double_blocks.0.img_attn.proj",
    "transformer_blocks.0.attn.to_add_out": "double_blocks.0.txt_attn.proj",
    "transformer_blocks.0.ff.linear_in": "double_blocks.0.img_mlp.0",
    "transformer_blocks.0.ff.linear_out": "double_blocks.0.img_mlp.2",
    "transformer_blocks.0.ff_context.linear_in": "double_blocks.0.txt_mlp.0",
    "transformer_blocks.0.ff_context.linear_out": "double_blocks.0.txt_mlp.2",
    "single_transformer_blocks.0.attn.to_qkv_mlp_proj": "single_blocks.0.linear1",
    "single_transformer_blocks.0.attn.to_out": "single_blocks.0.linear2",
}
today = {name.removesuffix(".weight"): x for name, x in model.state_dict().items()}
found = {f"{NAMES[name]}.weight": x for name, x in today.items() if name in NAMES}
scale, shift = today["norm_out.linear"].chunk(2)
found["final_layer.adaLN_modulation.1.weight"] = torch.cat([shift, scale])
block = "transformer_blocks.0.attn."
for stream, names in (("img", ("to_q", "to_k", "to_v")), ("txt", ("add_q_proj", "add_k_proj", "add_v_proj"))):
    found[f"double_blocks.0.{stream}_attn.qkv.weight"] = torch.cat([today[block + name] for name in names])
for x, word in (("q", "query"), ("k", "key")):
    found[f"double_blocks.0.img_attn.norm.{word}_norm.scale"] = today[f"{block}norm_{x}"]
    found[f"double_blocks.0.txt_attn.norm.{word}_norm.scale"] = today[f"{block}norm_added_{x}"]
    found[f"single_blocks.0.norm.{word}_norm.scale"] = today[f"single_transformer_blocks.0.attn.norm_{x}"]
prefix = "model.diffusion_model."
assert CHECKPOINT_KEY_NAMES["flux2"][0].startswith(prefix)  # which diffusers says is FLUX.2
save_file({name: x.contiguous() for name, x in found.items()}, "bare.safetensors")
save_file({prefix + name: x.contiguous() for name, x in found.items()}, "comfy.safetensors")

read = Flux2Transformer2DModel.from_single_file("bare.safetensors", config="config")
assert all(torch.equal(x, read.state_dict()[name]) for name, x in model.state_dict().items())
print("bare names: read")
try:
    Flux2Transformer2DModel.from_single_file("comfy.safetensors", config="config")
except KeyError as error:
    print(f"behind {prefix}: KeyError {error}")
else:
    raise SystemExit("it was read")
PYTHON
echo "diffusers does not read ComfyUI's files of FLUX.2"
