#!/usr/bin/env bash
# The last modulation of FLUX.2 is (shift, scale) in the files of Black Forest Labs, where it is final_layer.adaLN_modulation.1, and
# (scale, shift) in diffusers, where it is norm_out.linear. diffusers swaps the halves when it reads a checkpoint, and when it reads a
# LoRA of FLUX.1, whose layer is the same. One would guess that it does so for a LoRA of FLUX.2 in the original names, as ai-toolkit
# and ComfyUI write them ("diffusion_model.final_layer.adaLN_modulation.1.lora_B.weight"). It renames that one and leaves its rows
# as they are: what was trained to move the shift moves the scale, and the other way round, at the full strength of the LoRA and
# without a word. Who trained that layer gets another picture than the trainer showed; every other layer is right.
# diffusers 0.42.1, peft 0.21.2, torch 2.13.0 (loaders/lora_conversion_utils.py, _convert_non_diffusers_flux2_lora_to_diffusers).
# Seen, for a tiny random model: a LoRA of rank 1 put into the checkpoint before it is read, and the same LoRA loaded beside the
# checkpoint, give one weight for single_blocks.0.linear1, and for the last modulation two whose changes are each other's halves.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 peft==0.21.2 accelerate safetensors
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import torch
from diffusers import Flux2KleinPipeline, Flux2Transformer2DModel
from diffusers.loaders.single_file_utils import convert_flux2_transformer_checkpoint_to_diffusers as read
from safetensors.torch import save_file

torch.manual_seed(0)
OPTIONS = dict(
    in_channels=4, num_layers=0, num_single_layers=1, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=8,
    timestep_guidance_channels=8, axes_dims_rope=(2, 2, 2, 2), guidance_embeds=False,
)
LAST, INSIDE = "final_layer.adaLN_modulation.1", "single_blocks.0.linear1"
TODAY = {LAST: "norm_out.linear", INSIDE: "single_transformer_blocks.0.attn.to_qkv_mlp_proj"}
model = Flux2Transformer2DModel(**OPTIONS)
rows = {name: model.get_submodule(layer).weight.shape for name, layer in TODAY.items()}

# The two layers of a checkpoint of the authors, without and with a LoRA of rank 1 put in.
base = {f"{name}.weight": torch.randn(shape) for name, shape in rows.items()}
lora = {name: (torch.randn(1, shape[1]), torch.randn(shape[0], 1)) for name, shape in rows.items()}
merged = {f"{name}.weight": base[f"{name}.weight"] + up @ down for name, (down, up) in lora.items()}
wanted = read(dict(merged))

# The same LoRA as a file beside the checkpoint.
model.load_state_dict(read(dict(base)), strict=False)
file = {}
for name, (down, up) in lora.items():
    file |= {f"diffusion_model.{name}.lora_A.weight": down, f"diffusion_model.{name}.lora_B.weight": up}
save_file(file, "lora.safetensors")
found = Flux2KleinPipeline.lora_state_dict("lora.safetensors")
Flux2KleinPipeline.load_lora_into_transformer(found, transformer=model)
model.fuse_lora()
model.unload_lora()

def change(weights, name):
    return weights[f"{TODAY[name]}.weight"] - read(dict(base))[f"{TODAY[name]}.weight"]

for name in TODAY:
    mine, theirs = change(wanted, name), change(model.state_dict(), name)
    swapped = torch.cat(theirs.chunk(2)[::-1])
    print(f"{name}: as merged {torch.allclose(mine, theirs, atol=1e-5)}, its halves swapped {torch.allclose(mine, swapped, atol=1e-5)}")
    assert torch.allclose(mine, theirs if name == INSIDE else swapped, atol=1e-5)
    assert (name == INSIDE) == torch.allclose(mine, theirs, atol=1e-5), "the halves are where they belong"
PYTHON
echo "diffusers leaves the halves of the last modulation in FLUX.2's LoRAs as they are"
