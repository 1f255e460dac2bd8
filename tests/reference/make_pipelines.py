"""Tiny pipelines of diffusers, and the latents that they end with."""

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))


def store(pipe: Any, folder: Path) -> Any:
    """Save a pipeline in float16, having rounded its weights to that, and return it in float32."""
    import torch

    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            component.half()
    pipe.save_pretrained(folder)
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            component.float()
    pipe.set_progress_bar_config(disable=True)
    for file in folder.rglob("tokenizer*/*"):  # those of the subject clip serve all
        file.unlink()
    return pipe


def make(folder: Path) -> None:
    """Write one folder a checkpoint, and latents.npz."""
    import diffusers

    from tests.pipelines import checkpoints, inputs
    from tests.pipelines.parity import generator, latents_of, nchw, other

    arrays: dict[str, np.ndarray] = {}
    image, mask = inputs.picture(16), nchw(inputs.mask(16)[None, ..., None])
    edges, prompts = nchw(image / 2 + 0.5), inputs.PROMPTS

    sd = store(checkpoints.stable_diffusion("tiny"), folder / "sd")
    options: dict[str, Any] = {"num_inference_steps": 20, "negative_prompt": ["blurry"] * 2}
    arrays["text"] = latents_of(sd, prompts, generator=generator(42), **options)
    arrays["text_stochastic"] = latents_of(sd, prompts, generator=generator(42), eta=1.0, **options)
    unguided = {"guidance_scale": 1.0, "num_inference_steps": 20}
    arrays["text_unguided"] = latents_of(sd, prompts, generator=generator(42), **unguided)
    ancestral = other((sd, None, {}), "StableDiffusionPipeline", ours=False)[0]
    ancestral.scheduler = diffusers.EulerAncestralDiscreteScheduler.from_pretrained(folder / "sd" / "scheduler")
    arrays["text_ancestral"] = latents_of(ancestral, prompts, generator=generator(42), **options)
    redraw = other((sd, None, {}), "StableDiffusionImg2ImgPipeline", ours=False)[0]
    arrays["image"] = latents_of(redraw, prompts, image=nchw(image), strength=0.7, generator=generator(42), **options)
    paint = other((sd, None, {}), "StableDiffusionInpaintPipeline", ours=False)[0]
    options |= {"height": 16, "width": 16}
    arrays["inpaint"] = latents_of(
        paint, prompts, image=nchw(image), mask_image=mask, strength=0.7, generator=generator(42), **options
    )
    net = checkpoints.controlnet("tiny")
    net.half().save_pretrained(folder / "controlnet")
    steered = other(
        (sd, None, {}), "StableDiffusionControlNetPipeline", ours=False, their_components={"controlnet": net.float()}
    )[0]
    options |= {"control_guidance_end": 0.6, "controlnet_conditioning_scale": 0.7}
    arrays["controlnet"] = latents_of(steered, prompts, edges, generator=generator(42), **options)

    xl = store(checkpoints.stable_diffusion_xl("tiny"), folder / "xl")
    arrays["xl"] = latents_of(
        xl, prompts, generator=generator(42), num_inference_steps=20, denoising_end=0.7, crops_coords_top_left=(3, 4)
    )
    ldm = store(checkpoints.latent_diffusion("tiny"), folder / "ldm")
    arrays["ldm"] = ldm(batch_size=2, generator=generator(42), num_inference_steps=20, output_type="np").images
    np.savez_compressed(folder / "latents.npz", **arrays)
