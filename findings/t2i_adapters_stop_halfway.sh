#!/usr/bin/env bash
# adapter_conditioning_factor of StableDiffusionXLAdapterPipeline is documented as the share of the timesteps in which a
# T2I-Adapter acts, 1.0 being all of them. One would guess that the default steers the whole picture with every scheduler.
# It is multiplied with num_inference_steps and compared with the number of the U-Net's call, so with schedulers that call
# twice a step (Heun, KDPM2) the adapter falls silent after half of the run, where the details are drawn, and nothing says so.
# Who compares samplers with an adapter compares pictures that follow the sketch with pictures that half follow it.
# diffusers 0.42.1 (pipelines/t2i_adapter/pipeline_stable_diffusion_xl_adapter.py), torch 2.13.0.
# Seen with 10 steps: Euler 10 of 10 calls are steered, Heun and KDPM2 10 of 19.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 diffusers==0.42.1 transformers==5.23.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import diffusers
import torch

torch.manual_seed(0)
unet = diffusers.UNet2DConditionModel(
    sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=8,
    attention_head_dim=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), addition_embed_type="text_time",
    addition_time_embed_dim=4, projection_class_embeddings_input_dim=6 * 4 + 8,
)
vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
adapter = diffusers.T2IAdapter(channels=[8, 16], num_res_blocks=1, downscale_factor=1, adapter_type="full_adapter")
pipe = diffusers.StableDiffusionXLAdapterPipeline(
    vae, None, None, None, None, unet, adapter, diffusers.EulerDiscreteScheduler(), force_zeros_for_empty_prompt=False
)
pipe.set_progress_bar_config(disable=True)
steered = []
forward = unet.forward


def counted(*args, **options):
    steered.append(options.get("down_intrablock_additional_residuals") is not None)
    return forward(*args, **options)


unet.forward = counted
told, pooled = torch.randn(1, 4, 8), torch.randn(1, 8)
seen = {}
for kind in (diffusers.EulerDiscreteScheduler, diffusers.HeunDiscreteScheduler, diffusers.KDPM2DiscreteScheduler):
    pipe.scheduler = kind()
    steered.clear()
    pipe(
        prompt_embeds=told, pooled_prompt_embeds=pooled, negative_prompt_embeds=told,
        negative_pooled_prompt_embeds=pooled, image=torch.rand(1, 3, 8, 8), num_inference_steps=10, height=8, width=8,
        output_type="latent", adapter_conditioning_factor=1.0,
    )
    seen[kind.__name__] = sum(steered), len(steered)
    print(f"{kind.__name__}: {sum(steered)} of {len(steered)} calls of the U-Net are steered")
assert seen["EulerDiscreteScheduler"] == (10, 10)
assert seen["HeunDiscreteScheduler"] == seen["KDPM2DiscreteScheduler"] == (10, 19)
PYTHON
