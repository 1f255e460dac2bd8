#!/usr/bin/env bash
# The audio-diffusion checkpoints of the Hub name their spectrogram converter in model_index.json as ["audio_diffusion", "Mel"].
# One would guess that diffusers, which exports AudioDiffusionPipeline and Mel at the top, loads such a folder. It does not: the
# library of a component is looked for as an attribute of diffusers.pipelines, the module has moved to pipelines.deprecated, and
# from_pretrained raises a ValueError that speaks of trust_remote_code, which is no cure. What diffusers saves today names the
# full module path instead, and loads. So sound pipelines of 2022 need their index rewritten, or their parts loaded one by one,
# and whoever writes such folders must know that old and new readers want different names.
# diffusers 0.42.1, librosa 0.11.0, torch 2.13.0. Seen: ValueError with the Hub's name; with the full path it loads.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 diffusers==0.42.1 librosa==0.11.0 transformers==5.23.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import json

import diffusers

unet = diffusers.UNet2DModel(
    sample_size=16, in_channels=1, out_channels=1, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4,
    down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
)
mel = diffusers.Mel(x_res=16, y_res=16, n_fft=256, hop_length=64)
diffusers.AudioDiffusionPipeline(None, unet, mel, diffusers.DDIMScheduler()).save_pretrained("pipe")
with open("pipe/model_index.json") as file:
    index = json.load(file)
print("diffusers writes", index["mel"])
assert index["mel"] != ["audio_diffusion", "Mel"]
diffusers.AudioDiffusionPipeline.from_pretrained("pipe")
print("and loads it")
index["mel"] = ["audio_diffusion", "Mel"]
with open("pipe/model_index.json", "w") as file:
    json.dump(index, file)
try:
    diffusers.AudioDiffusionPipeline.from_pretrained("pipe")
except ValueError as error:
    print(f"with the Hub's name: ValueError: {str(error)[:90]}...")
else:
    raise SystemExit("it loads now: the behaviour has changed")
PYTHON
