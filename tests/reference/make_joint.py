"""Tiny transformers over pictures and a text, each with its own weights: SD3's and Chroma's, with their outputs."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.reference.make_transformers import FLUX, build_of

SD3 = {
    "sample_size": 8,
    "in_channels": 4,
    "num_layers": 3,
    "attention_head_dim": 10,
    "num_attention_heads": 2,
    "joint_attention_dim": 12,
    "caption_projection_dim": 20,
    "pooled_projection_dim": 7,
    "out_channels": 5,
    "pos_embed_max_size": 6,
}
CHROMA = {
    "in_channels": 6,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 10,
    "num_attention_heads": 2,
    "joint_attention_dim": 12,
    "axes_dims_rope": (2, 4, 4),
    "approximator_num_channels": 16,
    "approximator_hidden_dim": 14,
    "approximator_layers": 2,
}
FLUX_CONTROL = {**FLUX, "num_layers": 2, "num_single_layers": 1}
# name: (class, options)
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "sd3": ("SD3Transformer2DModel", SD3),
    "sd35": ("SD3Transformer2DModel", {**SD3, "dual_attention_layers": (0, 2), "qk_norm": "rms_norm"}),
    "chroma": ("ChromaTransformer2DModel", CHROMA),
    "chroma_masked": ("ChromaTransformer2DModel", {**CHROMA, "out_channels": 5}),
    "sd3_control": ("SD3ControlNetModel", {**SD3, "extra_conditioning_channels": 1, "dual_attention_layers": (1,)}),
    "sd3_control_alone": (
        "SD3ControlNetModel", {**SD3, "joint_attention_dim": None, "use_pos_embed": False, "pos_embed_type": None}
    ),
    "flux_control": ("FluxControlNetModel", {**FLUX_CONTROL, "num_mode": 3, "guidance_embeds": True}),
    "flux_control_hint": (
        "FluxControlNetModel",
        {**FLUX_CONTROL, "in_channels": 8, "patch_size": 2, "conditioning_embedding_channels": 2},
    ),
}  # fmt: skip
STORED = ("sd35", "chroma_masked", "sd3_control", "flux_control")  # the others are only compared live
SKIPPED = 1  # the layer that is left out


def build(name: str) -> Any:
    """The torch model of that name, with a table of places that is not the one a fresh model has."""
    import torch

    model = build_of(*CONFIGS[name])
    if name in ("sd3", "sd35", "sd3_control"):
        model.pos_embed.pos_embed.data += 0.1 * torch.randn_like(model.pos_embed.pos_embed)
        model.pos_embed.pos_embed.data = model.pos_embed.pos_embed.data.half().float()
    return model


def inputs(name: str) -> dict[str, Any]:
    """Inputs as fdiff takes them, a batch of two."""
    if "control" in name:
        return control_inputs(name)
    random = np.random.default_rng(0)
    text = random.standard_normal((2, 5, 12)).astype(np.float32)
    if name.startswith("sd3"):
        arrays = {
            "hidden_states": random.standard_normal((2, 6, 8, 4)).astype(np.float32),
            "encoder_hidden_states": text,
            "pooled_projections": random.standard_normal((2, 7)).astype(np.float32),
            "timestep": np.array([250, 900], np.float32),
        }
        if name == "sd3":  # what a ControlNet gives
            arrays["block_controlnet_hidden_states"] = list(random.standard_normal((2, 2, 12, 20)).astype(np.float32))
        else:
            arrays["skip_layers"] = np.array([[i == SKIPPED for i in range(3)]] * 2)
        return arrays
    ids = np.array([[0, row, column] for row in range(3) for column in range(4)], np.float32)
    arrays = {
        "hidden_states": random.standard_normal((2, 12, 6)).astype(np.float32),
        "encoder_hidden_states": text,
        "timestep": np.array([0.25, 0.9], np.float32),
        "img_ids": ids,
        "txt_ids": np.zeros((5, 3), np.float32),
    }
    if name == "chroma_masked":
        arrays["attention_mask"] = np.ones((2, 17), bool)
        arrays["attention_mask"][0, 3:5] = False
    else:
        arrays["attention_mask"] = np.ones((2, 17), np.float32)
        arrays["attention_mask"][0, 3:5] = 0
        samples = random.standard_normal((2, 2, 12, 20)).astype(np.float32)
        arrays["controlnet_block_samples"] = list(samples[:1])
        arrays["controlnet_single_block_samples"] = list(samples[1:])
    return arrays


def control_inputs(name: str) -> dict[str, Any]:
    """Those of a ControlNet."""
    arrays = inputs("sd35" if name.startswith("sd3") else "chroma_masked")
    random = np.random.default_rng(1)

    def drawn(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32)

    arrays |= {"conditioning_scale": 0.7, "pooled_projections": drawn(2, 7)}
    if name.startswith("sd3"):
        del arrays["skip_layers"]
        arrays["controlnet_cond"] = drawn(2, 6, 8, 5 if name == "sd3_control" else 4)
        if name == "sd3_control_alone":
            arrays |= {"hidden_states": drawn(2, 12, 20), "encoder_hidden_states": None}
        return arrays
    del arrays["attention_mask"]
    if name == "flux_control":
        return arrays | {
            "controlnet_cond": drawn(2, 12, 6), "controlnet_mode": np.array([2, 0]), "guidance": drawn(2)
        }  # fmt: skip
    return arrays | {"controlnet_cond": drawn(2, 48, 64, 3), "hidden_states": drawn(2, 12, 8)}


def run(name: str, model: Any, arrays: dict[str, Any]) -> np.ndarray:
    """What torch computes from those inputs."""
    import torch

    def tensor(value: Any) -> Any:
        if isinstance(value, list):
            return [tensor(item) for item in value]
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    arrays = {key: tensor(value) for key, value in arrays.items()}
    for key in ("hidden_states", "controlnet_cond"):
        if key in arrays and arrays[key].ndim == 4:
            arrays[key] = arrays[key].permute(0, 3, 1, 2)
    if "controlnet_mode" in arrays:
        arrays["controlnet_mode"] = arrays["controlnet_mode"][:, None]
    if "control" in name:
        with torch.no_grad():
            return np.stack([one.numpy() for part in model(**arrays).values() for one in part])
    if "skip_layers" in arrays:
        arrays["skip_layers"] = [SKIPPED]
    if not name.startswith("sd3"):
        with torch.no_grad():
            return model(**arrays).sample.numpy()
    with torch.no_grad():
        return model(**arrays).sample.permute(0, 2, 3, 1).numpy()


def make(folder: Path) -> None:
    """Write each checkpoint in the Hub's layout (float16 weights), and `<name>.npz` with its output."""
    for name in STORED:
        model = build(name)
        np.savez(folder / f"{name}.npz", output=run(name, model, inputs(name)))
        model.half().save_pretrained(folder / name)
