"""Tiny language models that also see, with the hidden states that their text sides have."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.reference import make_causal_lm

INPUTS, LAYERS = make_causal_lm.inputs, make_causal_lm.LAYERS
TEXT = make_causal_lm.SIZES
YARN = {
    "rope_type": "yarn", "rope_theta": 100.0, "factor": 8.0, "original_max_position_embeddings": 64, "beta_fast": 4.0,
    "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1,
}  # fmt: skip
PIXTRAL = {
    "model_type": "pixtral", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
    "head_dim": 8, "image_size": 28, "patch_size": 14,
}  # fmt: skip
QWEN_VISION = {
    "hidden_size": 8, "intermediate_size": 8, "depth": 1, "num_heads": 1, "out_hidden_size": 16, "patch_size": 4,
    "num_position_embeddings": 4, "deepstack_visual_indexes": [0],
}  # fmt: skip
QWEN2_VISION = {
    "hidden_size": 16, "intermediate_size": 12, "depth": 3, "num_heads": 2, "out_hidden_size": 16, "patch_size": 2,
    "window_size": 8, "fullatt_block_indexes": [1],
}  # fmt: skip
QWEN2_ROTARY = {"rope_type": "default", "rope_theta": 1e5, "mrope_section": [1, 1, 2]}
SECTIONS = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 1], "mrope_interleaved": True}
MISTRAL = {**TEXT, "model_type": "mistral", "rope_parameters": {"rope_type": "default", "rope_theta": 1e5}}
MINISTRAL = {**TEXT, "model_type": "ministral3", "rope_parameters": YARN}
TALL = {key: value for key, value in YARN.items() if not key.startswith("mscale")}
# name: (class, options)
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "mistral3": ("Mistral3Model", {"text_config": MINISTRAL, "vision_config": PIXTRAL}),
    "mistral3_scaled": (
        "Mistral3Model", {"text_config": {**MINISTRAL, "rope_parameters": TALL}, "vision_config": PIXTRAL}
    ),
    "mistral3_with_head": (
        "Mistral3ForConditionalGeneration", {"text_config": MISTRAL, "vision_config": PIXTRAL}
    ),
    "qwen2_5_vl": (
        "Qwen2_5_VLForConditionalGeneration",
        {
            "text_config": {
                **{key: value for key, value in TEXT.items() if key != "head_dim"}, "rope_parameters": QWEN2_ROTARY,
                "num_attention_heads": 2, "num_key_value_heads": 1,
            },
            "vision_config": QWEN2_VISION, "image_token_id": 39,
        },
    ),
    "qwen3_vl": (
        "Qwen3VLModel", {"text_config": {**TEXT, "rope_parameters": SECTIONS}, "vision_config": QWEN_VISION}
    ),
    "qwen3_vl_with_head": (
        "Qwen3VLForConditionalGeneration",
        {"text_config": {**TEXT, "rope_parameters": SECTIONS}, "vision_config": QWEN_VISION},
    ),
}  # fmt: skip
STORED = ("mistral3", "qwen2_5_vl", "qwen3_vl")  # the others are only compared live


def build(name: str, seed: int = 0, **text: Any) -> Any:
    """The torch model of that name, with weights that are not a fresh model's; `text` are options of its text side."""
    import torch
    import transformers

    torch.manual_seed(seed)
    cls, options = CONFIGS[name]
    config = getattr(transformers, cls.removesuffix("ForConditionalGeneration").removesuffix("Model") + "Config")
    model = getattr(transformers, cls)(config(**{**options, "text_config": {**options["text_config"], **text}})).eval()
    for parameter in model.parameters():
        parameter.data = (parameter.data + 0.3 * torch.randn_like(parameter)).half().float()
    return model


def pixels(picture: np.ndarray, size: int, merged: int, frames: int) -> np.ndarray:
    """The patches of a picture (h, w, c) as Qwen2.5-VL takes them in torch, of the picture so many times."""
    rows, columns = (side // size // merged for side in picture.shape[:2])
    parts = picture.reshape(rows, merged, size, columns, merged, size, -1).transpose(0, 3, 1, 4, 6, 2, 5)
    return np.stack([parts] * frames, axis=5).reshape(rows * columns * merged**2, -1)


def run(model: Any) -> dict[str, np.ndarray]:
    """The hidden states of LAYERS that torch computes, told what is padding or not."""
    return make_causal_lm.run(model)


def make(folder: Path) -> None:
    """Write each checkpoint in the Hub's layout (float16 weights), and `<name>.npz` with its outputs."""
    for name in STORED:
        model = build(name)
        np.savez(folder / f"{name}.npz", **run(model))
        model.half().save_pretrained(folder / name)
