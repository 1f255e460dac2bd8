#!/usr/bin/env bash
# Three T2I-Adapters in one diffusers MultiAdapter: one would guess that what save_pretrained writes, from_pretrained
# reads. The folders that are written are NAME, NAME_1 and NAME_1_2 (the number is put behind the last name, not the
# first), and those that are looked for are NAME, NAME_1, NAME_2: the third adapter is lost without a word.
# Whoever steers by three pictures (edges, depth and a pose) and saves the set gets one with two of them back, and whoever
# reads such folders elsewhere has to know both ways of counting.
# diffusers 0.42.1 (models/adapter.py: MultiAdapter.save_pretrained and from_pretrained), torch 2.13.0. Seen:
#   written: ['adapter', 'adapter_1', 'adapter_1_2']; read back: 2 of 3
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.12.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
from pathlib import Path

import diffusers

small = [diffusers.T2IAdapter(channels=(8,), num_res_blocks=1, downscale_factor=8) for _ in range(3)]
diffusers.MultiAdapter(small).save_pretrained("model/adapter")
written = sorted(path.name for path in Path("model").iterdir())
again = diffusers.MultiAdapter.from_pretrained("model/adapter")
print(f"written: {written}; read back: {len(again.adapters)} of 3")
assert written == ["adapter", "adapter_1", "adapter_1_2"]
assert len(again.adapters) == 2
PYTHON
