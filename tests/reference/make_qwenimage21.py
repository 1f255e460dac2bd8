"""Tiny autoencoders of Qwen-Image-2.1, with inputs and outputs."""

from pathlib import Path
from typing import Any

import numpy as np

OPTIONS: dict[str, Any] = {
    "base_dim": 4,
    "decoder_base_dim": 6,
    "z_dim": 5,
    "dim_mult": [1, 2, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True],
    "latents_mean": [0.5, -1.0, 0.0, 2.0, 1.0],
    "latents_std": [3.0, 1.0, 2.0, 0.5, 4.0],
}
PICTURE = np.random.default_rng(0).uniform(-1, 1, (2, 8, 12, 4)).astype(np.float32)


def build() -> Any:
    """The torch model of those options, with weights that are not a fresh model's."""
    import diffusers
    import torch

    torch.manual_seed(0)
    model = diffusers.AutoencoderKLQwenImage21(**OPTIONS).eval()
    for parameter in model.parameters():
        parameter.data = (parameter.data + 0.1 * torch.randn_like(parameter)).half().float()
    return model


def run(model: Any, picture: np.ndarray) -> dict[str, np.ndarray]:
    """What torch makes of a picture, and of a tenth of its latents, which then do not all lie at the bounds."""
    import torch

    with torch.no_grad():
        found = model.encode(torch.from_numpy(picture).permute(0, 3, 1, 2)[:, :, None]).latent_dist
        arrays = {"mean": found.mean, "logvar": found.logvar, "decoded": model.decode(found.mean / 10).sample}
    return {name: array[:, :, 0].permute(0, 2, 3, 1).numpy() for name, array in arrays.items()}


def make(folder: Path) -> None:
    """Write a checkpoint in the Hub's layout (float16 weights), and output.npz."""
    model = build()
    np.savez(folder / "output.npz", **run(model, PICTURE))
    model.half().save_pretrained(folder / "vae")
