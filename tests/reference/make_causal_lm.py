"""Tiny language models that pipelines read texts with, with inputs and outputs."""

from pathlib import Path
from typing import Any

import numpy as np

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
}
# name: (class, options)
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("Qwen3ForCausalLM", {**SIZES, "rope_theta": 1e6, "tie_word_embeddings": True}),
    "qwen3_windows": (
        "Qwen3ForCausalLM",
        {**SIZES, "attention_bias": True, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ),
    "gemma2": (
        "Gemma2Model",
        {**SIZES, "sliding_window": 4, "query_pre_attn_scalar": 9, "attn_logit_softcapping": 0.5},
    ),
}
STORED = ("qwen3", "gemma2")  # the others are only compared live
LAYERS = (0, 2, -1)  # of the hidden states


def build(name: str) -> Any:
    """The torch model of that name, with weights that are not a fresh model's."""
    import torch
    import transformers

    torch.manual_seed(0)
    cls, options = CONFIGS[name]
    config = getattr(transformers, cls.removesuffix("ForCausalLM").removesuffix("Model") + "Config")(**options)
    model = getattr(transformers, cls)(config).eval()
    for parameter in model.parameters():
        parameter.data = (parameter.data + 0.3 * torch.randn_like(parameter)).half().float()
    return model


def inputs() -> tuple[np.ndarray, np.ndarray]:
    """Ids of three texts and what is text in them: whole, followed by padding, and behind padding."""
    ids, mask = np.random.default_rng(0).integers(0, 40, (3, 11)), np.ones((3, 11), np.int32)
    mask[1, 7:], mask[2, :3] = 0, 0
    return ids.astype(np.int32), mask


def run(model: Any) -> dict[str, np.ndarray]:
    """The hidden states of LAYERS that torch computes, whether it is told what is padding or not."""
    import torch

    ids, mask = (torch.from_numpy(array.astype(np.int64)) for array in inputs())
    with torch.no_grad():
        outputs = {"masked": model(ids, attention_mask=mask, output_hidden_states=True),
                   "plain": model(ids, output_hidden_states=True)}  # fmt: skip
    return {
        f"{kind} {layer}": output.hidden_states[layer].numpy() for kind, output in outputs.items() for layer in LAYERS
    }


def make(folder: Path) -> None:
    """Write each checkpoint in the Hub's layout (float16 weights), and `<name>.npz` with its outputs."""
    for name in STORED:
        model = build(name)
        np.savez(folder / f"{name}.npz", **run(model))
        model.half().save_pretrained(folder / name)
