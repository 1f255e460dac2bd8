"""A tiny U-Net and ControlNetXSAdapter, and the network that they make, with inputs and outputs."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

# A down block has two layers, always; the largest divisors of these channels are those of the norms in either order.
UNET = {
    "block_out_channels": (8, 16),
    "layers_per_block": 2,
    "norm_num_groups": 4,
    "attention_head_dim": (2, 4),
    "cross_attention_dim": 12,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 6 + 3 * 4,
}
ADAPTER = {
    "block_out_channels": [4, 6],
    "num_attention_heads": [2, 3],
    "learn_time_embedding": True,
    "time_embedding_mix": 0.4,
    "conditioning_channels": 2,
    "conditioning_channel_order": "bgr",
    "conditioning_embedding_out_channels": (4, 6, 8),
}


def build() -> tuple[Any, Any]:
    """The U-Net and the adapter of torch, with weights that are not a fresh model's zeros and ones."""
    import torch
    from diffusers import ControlNetXSAdapter, UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(**UNET).eval()
    models = unet, ControlNetXSAdapter.from_unet(unet, **ADAPTER).eval()
    for model in models:
        for parameter in model.parameters():
            parameter.data = (parameter.data + 0.1 * torch.randn_like(parameter)).half().float()
    return models


def join(unet: Any, adapter: Any, folder: Path) -> Any:
    """The network that they make, as it is read from a folder: its norms are then those that its config says."""
    from diffusers import UNetControlNetXSModel

    UNetControlNetXSModel.from_unet(unet, adapter).save_pretrained(folder)
    return UNetControlNetXSModel.from_pretrained(folder).eval()


def inputs() -> dict[str, Any]:
    """Inputs as fdiff takes them: a batch of two."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal((2, *shape)).astype(np.float32)

    return {
        "sample": normal(6, 8, 4),
        "timestep": np.array([7, 93], np.int32),
        "encoder_hidden_states": normal(5, 12),
        "controlnet_cond": normal(24, 32, 2),
        "conditioning_scale": 0.8,
        "added_cond_kwargs": {"text_embeds": normal(6), "time_ids": 100 * normal(3)},
    }


def run(model: Any, arrays: dict[str, Any], **options: Any) -> np.ndarray:
    """What torch computes from those inputs: (b, h, w, 4)."""
    import torch

    def tensor(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: tensor(item) for key, item in value.items()}
        if not isinstance(value, np.ndarray):
            return value
        x = torch.from_numpy(value)
        return x.permute(0, 3, 1, 2) if x.ndim == 4 else x

    with torch.no_grad():
        return model(**tensor(arrays), **options).sample.permute(0, 2, 3, 1).numpy()


def make(folder: Path) -> None:
    """Write both checkpoints in the Hub's layout, and `outputs.npz`: of both together, and of the U-Net alone."""
    unet, adapter = build()
    with tempfile.TemporaryDirectory() as temporary:
        joint = join(unet, adapter, Path(temporary))
    outputs = {"steered": run(joint, inputs()), "alone": run(joint, inputs(), apply_control=False)}
    np.savez(folder / "outputs.npz", **outputs)
    for name, model in (("unet", unet), ("adapter", adapter)):
        model.half().save_pretrained(folder / name)
