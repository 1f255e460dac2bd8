"""Tiny diffusion transformers with inputs and outputs."""

from pathlib import Path
from typing import Any

import numpy as np

# name: (class, options)
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "z_image": (
        "ZImageTransformer2DModel",
        {
            "in_channels": 4,
            "dim": 24,
            "n_layers": 2,
            "n_refiner_layers": 1,
            "n_heads": 2,
            "n_kv_heads": 2,
            "cap_feat_dim": 10,
            "axes_dims": (4, 2, 6),
            "axes_lens": (80, 8, 8),
        },
    ),
}


def build(name: str) -> Any:
    """The torch model of that name, with weights that are not a fresh model's zeros and ones."""
    import diffusers
    import torch

    torch.manual_seed(0)
    cls, options = CONFIGS[name]
    model = getattr(diffusers, cls)(**options).eval()
    for parameter in model.parameters():
        parameter.data = (parameter.data + 0.1 * torch.randn_like(parameter)).half().float()
    return model


def inputs(name: str) -> dict[str, np.ndarray]:
    """Inputs as fdiff takes them: a batch of two with texts of several lengths."""
    random = np.random.default_rng(0)
    mask = np.ones((2, 40), np.int32)
    mask[0, 5:] = 0
    return {
        "sample": random.standard_normal((2, 6, 8, 4)).astype(np.float32),
        "timestep": np.array([0.25, 0.9], np.float32),
        "encoder_hidden_states": random.standard_normal((2, 40, 10)).astype(np.float32),
        "encoder_attention_mask": mask,
    }


def run(name: str, model: Any, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """What torch computes from those inputs: (b, h, w, c). Z-Image takes lists, each picture with one frame."""
    import torch

    x, t, text = (torch.from_numpy(arrays[key]) for key in ("sample", "timestep", "encoder_hidden_states"))
    mask = torch.from_numpy(arrays["encoder_attention_mask"]).bool()
    texts = [tokens[seen] for tokens, seen in zip(text, mask, strict=True)]
    with torch.no_grad():
        output = model(list(x.permute(0, 3, 1, 2).unsqueeze(2)), t, texts).sample
    return torch.stack(output).squeeze(2).permute(0, 2, 3, 1).numpy()


def make(folder: Path) -> None:
    """Write each checkpoint in the Hub's layout (float16 weights), and `<name>.npz` with its output."""
    for name in CONFIGS:
        model = build(name)
        np.savez(folder / f"{name}.npz", output=run(name, model, inputs(name)))
        model.half().save_pretrained(folder / name)
