#!/usr/bin/env bash
# A Stable Diffusion folder saved in float16 is loaded without torch_dtype. One would guess that it draws: either all of it
# in float16, as the files are, or all of it in float32, diffusers' default. diffusers' models come in float32, but the text
# encoder is transformers', which since version 5 keeps the dtype of the file, so the two halves of one pipeline meet in the
# first attention layer and it raises a RuntimeError about dtypes that names no component and no cure. torch_dtype=torch.float32
# mends it. Who ships small folders in float16 must keep the text encoder in float32, or tell every user.
# diffusers 0.42.1, transformers 5.23.0, torch 2.13.0. Seen: vae and unet float32, text_encoder float16, RuntimeError.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 diffusers==0.42.1 transformers==5.23.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import json
import os

import diffusers
import torch
import transformers

torch.manual_seed(0)
os.makedirs("tokenizer")
with open("tokenizer/vocab.json", "w") as file:
    json.dump({word: i for i, word in enumerate(["a</w>", "<|startoftext|>", "<|endoftext|>"])}, file)
with open("tokenizer/merges.txt", "w") as file:
    file.write("#version: 0.2\n")
tokenizer = transformers.CLIPTokenizer("tokenizer/vocab.json", "tokenizer/merges.txt", model_max_length=8)
config = transformers.CLIPTextConfig(
    vocab_size=3, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
    max_position_embeddings=8, bos_token_id=1, eos_token_id=2,
)
unet = diffusers.UNet2DConditionModel(
    sample_size=8, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4, cross_attention_dim=8,
    attention_head_dim=4, down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
)
vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
pipe = diffusers.StableDiffusionPipeline(
    vae, transformers.CLIPTextModel(config), tokenizer, unet, diffusers.DDIMScheduler(), None, None,
    requires_safety_checker=False,
)
pipe.to(torch.float16).save_pretrained("pipe")
again = diffusers.StableDiffusionPipeline.from_pretrained("pipe")
dtypes = {name: str(part.dtype) for name, part in again.components.items() if isinstance(part, torch.nn.Module)}
print(dtypes)
try:
    again("a", num_inference_steps=1, height=8, width=8, output_type="latent")
except RuntimeError as error:
    print(f"RuntimeError: {error}")
    failed = True
else:
    failed = False
assert dtypes == {"vae": "torch.float32", "text_encoder": "torch.float16", "unet": "torch.float32"}
assert failed
whole = diffusers.StableDiffusionPipeline.from_pretrained("pipe", torch_dtype=torch.float32)
whole("a", num_inference_steps=1, height=8, width=8, output_type="latent")
print("with torch_dtype=torch.float32 it draws")
PYTHON
