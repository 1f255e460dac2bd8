"""Tiny ControlNetModel, ControlNetUnionModel and T2IAdapter checkpoints with inputs and outputs."""

from pathlib import Path
from typing import Any

import numpy as np

CONTROLNET = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 2,
    "cross_attention_dim": 12,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "conditioning_embedding_out_channels": (4, 6, 8),
}
# name: (class, options)
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "controlnet": ("ControlNetModel", CONTROLNET),
    "controlnet_xl": (
        "ControlNetModel",
        {
            **CONTROLNET,
            "mid_block_type": "UNetMidBlock2D",
            "conditioning_channels": 2,
            "controlnet_conditioning_channel_order": "bgr",
            "global_pool_conditions": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 6 + 3 * 4,
            "transformer_layers_per_block": (2, 1),
            "attention_head_dim": (2, 4),
            "num_class_embeds": 5,
            "use_linear_projection": True,
        },
    ),
    "union": (
        "ControlNetUnionModel",
        {
            **CONTROLNET,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 6 + 3 * 4,
            "num_control_type": 3,
            "num_trans_channel": 8,  # those of the latents' features, as everywhere
            "num_trans_head": 2,
            "num_trans_layer": 2,
            "num_proj_channel": 8,
        },
    ),
    "full_adapter": ("T2IAdapter", {"channels": (8, 16, 16), "downscale_factor": 4}),
    "full_adapter_xl": (
        "T2IAdapter",
        {"channels": (8, 12, 16, 16), "downscale_factor": 4, "adapter_type": "full_adapter_xl"},
    ),
    "light_adapter": (
        "T2IAdapter",
        {"channels": (8, 16), "downscale_factor": 4, "adapter_type": "light_adapter", "num_res_blocks": 3},
    ),
}


def build(name: str) -> Any:
    """The torch model of that name, with weights that are not a fresh model's zeros and ones."""
    import diffusers
    import torch

    torch.manual_seed(0)
    cls, config = CONFIGS[name]
    model = getattr(diffusers, cls)(**config).eval()
    for parameter in model.parameters():
        parameter.data = (parameter.data + 0.1 * torch.randn_like(parameter)).half().float()
    return model


def inputs(name: str) -> dict[str, Any]:
    """Inputs as fdiff takes them: a batch of two."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal((2, *shape)).astype(np.float32)

    if "adapter" in name:
        return {"x": normal(20, 28, 3)}
    arrays: dict[str, Any] = {
        "sample": normal(6, 8, 4),
        "timestep": np.array([7, 93], np.int32),
        "encoder_hidden_states": normal(5, 12),
        "controlnet_cond": normal(24, 32, 2 if name == "controlnet_xl" else 3),
        "conditioning_scale": 0.8,
    }
    if name in ("controlnet_xl", "union"):
        arrays["added_cond_kwargs"] = {"text_embeds": normal(6), "time_ids": 100 * normal(3)}
    if name == "controlnet_xl":
        arrays["class_labels"] = np.array([4, 2], np.int32)
    if name == "controlnet":
        arrays["guess_mode"] = True
    if name == "union":
        arrays["controlnet_cond"] = [arrays["controlnet_cond"], normal(24, 32, 3)]
        arrays["control_type"] = np.array([[1, 0, 1]] * 2, np.float32)
        arrays["control_type_idx"], arrays["conditioning_scale"] = [2, 0], [0.8, 0.3]
    return arrays


def run(model: Any, arrays: dict[str, Any]) -> dict[str, np.ndarray]:
    """What torch computes from those inputs: pictures (b, h, w, c), numbered."""
    import torch

    def tensor(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: tensor(item) for key, item in value.items()}
        if isinstance(value, list):
            return [tensor(item) for item in value]
        if not isinstance(value, np.ndarray):
            return value
        x = torch.from_numpy(value)
        return x.permute(0, 3, 1, 2) if x.ndim == 4 else x

    with torch.no_grad():
        output = model(**tensor(arrays))
    if not isinstance(output, list):
        output = [*output.down_block_res_samples, output.mid_block_res_sample]
    return {str(i): x.permute(0, 2, 3, 1).numpy() for i, x in enumerate(output)}


def make(folder: Path) -> None:
    """Write each checkpoint in the Hub's layout (float16 weights), and `<name>.npz` with its outputs."""
    for name in CONFIGS:
        model = build(name)
        np.savez(folder / f"{name}.npz", **run(model, inputs(name)))
        model.half().save_pretrained(folder / name)
