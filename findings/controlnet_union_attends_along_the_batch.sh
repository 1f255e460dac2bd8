#!/usr/bin/env bash
# A ControlNetUnionModel of diffusers weighs several pictures with a small transformer. One would guess that a sample's
# result depends on that sample's pictures alone. Its attention is torch's with the batch in the place of the tokens
# (batch_first is not set, and the features come as (batch, pictures, channels)), so every sample looks at the others: the
# same prompt, latents and pictures give other residuals when another sample lies beside them. The checkpoints were trained
# so, hence it cannot be mended afterwards, but who draws in batches, splits guidance into two calls, or maps over samples
# gets other pictures, which no seed explains.
# diffusers 0.42.1 (models/controlnets/controlnet_union.py), torch 2.13.0. Seen: with random weights the first sample
# moves by some 1e-5 of its largest value in double precision when the second one changes, and not otherwise.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 diffusers==0.42.1 transformers==5.23.0
"$work/venv/bin/python" - <<'PYTHON'
import diffusers
import torch

torch.manual_seed(0)
net = diffusers.ControlNetUnionModel(
    block_out_channels=(32,), down_block_types=("CrossAttnDownBlock2D",), layers_per_block=1, cross_attention_dim=16,
    attention_head_dim=4, norm_num_groups=8, conditioning_embedding_out_channels=(4, 8, 8, 16), num_control_type=6,
    num_trans_channel=32, num_trans_head=4, num_trans_layer=1, num_proj_channel=32, addition_embed_type="text_time",
    addition_time_embed_dim=8, projection_class_embeddings_input_dim=16 + 8 * 6,
).double().eval()
for name, parameter in net.named_parameters():  # as far from nothing as a trained one's
    if not parameter.any() or name.startswith(("task_embedding", "transformer_layes", "spatial_ch_projs")):
        torch.nn.init.normal_(parameter, std=0.3)


def first(other):
    """The residuals of a sample beside another one made of this seed."""
    mine, theirs = torch.Generator().manual_seed(1), torch.Generator().manual_seed(other)

    def pair(*shape):
        return torch.cat([torch.randn(1, *shape, generator=mine), torch.randn(1, *shape, generator=theirs)]).double()

    kinds = torch.zeros(2, 6).double()
    kinds[:, [1, 3]] = 1
    added = {"text_embeds": pair(16), "time_ids": torch.ones(2, 6).double()}
    with torch.no_grad():
        _, mid = net(
            pair(4, 8, 8), 500, pair(5, 16), controlnet_cond=[pair(3, 64, 64), pair(3, 64, 64)], control_type=kinds,
            control_type_idx=[1, 3], added_cond_kwargs=added, return_dict=False,
        )
    return mid[0]


one, again, other = first(2), first(2), first(3)
change = ((one - other).abs().max() / one.abs().max()).item()
print(f"the same neighbour: equal {torch.equal(one, again)}; another neighbour: off by {change:.1e}")
assert torch.equal(one, again)
assert change > 1e-6  # where double precision rounds at 1e-15
PYTHON
