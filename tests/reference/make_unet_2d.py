"""Tiny UNet2DModel checkpoints, one for each part of the architecture, with inputs and outputs."""

from pathlib import Path
from typing import Any

import numpy as np

DOWN_UP = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
ATTENTION = {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}
BASE = {
    **DOWN_UP,
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
}
# What each checkpoint sets beside BASE. The options of one checkpoint do not hide one another.
STORED: dict[str, dict[str, Any]] = {
    "plain": {
        "layers_per_block": 2,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "add_attention": False,
        "out_channels": 6,
        "act_fn": "relu",
        "dropout": 0.1,
    },
    "attention": {**ATTENTION, "attention_head_dim": None, "norm_eps": 1e-6, "mid_block_scale_factor": 1.5},
    "labels": {
        **ATTENTION,
        "num_class_embeds": 10,
        "resnet_time_scale_shift": "scale_shift",
        "in_channels": 1,
    },
    "resnet_resize": {
        "down_block_types": ("AttnDownBlock2D", "ResnetDownsampleBlock2D", "DownBlock2D"),
        "up_block_types": ("ResnetUpsampleBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (8, 16, 16),
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "center_input_sample": True,
        "class_embed_type": "timestep",
        "act_fn": "gelu",
    },
    "learned_time": {
        "time_embedding_type": "learned",
        "num_train_timesteps": 100,
        "class_embed_type": "identity",
        "time_embedding_dim": 24,
        "resnet_time_scale_shift": "scale_shift",
        "attn_norm_num_groups": 2,
        "act_fn": "mish",
    },
    "skip": {
        "down_block_types": ("SkipDownBlock2D",) * 2,
        "up_block_types": ("SkipUpBlock2D",) * 2,
        "time_embedding_type": "fourier",
    },
    "attention_skip": {
        "down_block_types": ("AttnSkipDownBlock2D",),
        "up_block_types": ("AttnSkipUpBlock2D",),
        "block_out_channels": (32,),
        "norm_num_groups": None,
        "mid_block_type": None,
    },
}
# Too large to store: compared live.
LARGER: dict[str, dict[str, Any]] = {
    "ncsnpp": {
        "down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D", "SkipDownBlock2D"),
        "up_block_types": ("SkipUpBlock2D", "AttnSkipUpBlock2D", "SkipUpBlock2D"),
        "block_out_channels": (32, 32, 64),
        "layers_per_block": 2,
        "norm_num_groups": None,
        "attention_head_dim": None,
        "time_embedding_type": "fourier",
        "mid_block_scale_factor": 2**0.5,
    },
    "ddpm": {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (64, 128, 256),
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "attention_head_dim": 8,
        "downsample_padding": 0,
    },
    "scale_shift": {
        **ATTENTION,
        "resnet_time_scale_shift": "scale_shift",
        "upsample_type": "resnet",
        "downsample_type": "resnet",
        "num_class_embeds": 7,
        "class_embed_type": "timestep",
    },
}
CONFIGS = {**STORED, **LARGER}


def build(name: str) -> Any:
    """The torch model of that name, with weights that are not a fresh model's zeros and ones."""
    import torch
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    model = UNet2DModel(**{**BASE, **CONFIGS[name]}).eval()
    for parameter in model.parameters():
        parameter.data = (parameter.data + 0.1 * torch.randn_like(parameter)).half().float()
    return model


def inputs(name: str) -> dict[str, np.ndarray]:
    """Inputs as fdiff takes them: a batch of two with different times and, where there are any, classes."""
    config = {**BASE, **CONFIGS[name]}
    random = np.random.default_rng(0)
    arrays = {
        "sample": random.standard_normal((2, 8, 12, config.get("in_channels", 3))).astype(np.float32),
        "timestep": np.array([7, 93], np.int32),
    }
    if config.get("class_embed_type") == "identity":
        width = config.get("time_embedding_dim") or 4 * config["block_out_channels"][0]
        arrays["class_labels"] = random.standard_normal((2, width)).astype(np.float32)
    elif config.get("class_embed_type") or config.get("num_class_embeds"):
        arrays["class_labels"] = np.array([9, 3], np.int32)
    return arrays


def run(model: Any, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """What torch computes from those inputs, as (b, h, w, c)."""
    import torch

    tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
    tensors["sample"] = tensors["sample"].permute(0, 3, 1, 2)
    with torch.no_grad():
        return model(**tensors).sample.permute(0, 2, 3, 1).numpy()


def make(folder: Path) -> None:
    """Write each checkpoint in the Hub's layout (float16 weights), and `<name>.npz` beside it."""
    for name in STORED:
        model, arrays = build(name), inputs(name)
        np.savez(folder / f"{name}.npz", **arrays, output=run(model, arrays))
        model.half().save_pretrained(folder / name)
