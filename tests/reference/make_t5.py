"""Tiny encoders of T5 and umT5 with inputs and outputs."""

from pathlib import Path
from typing import Any

import numpy as np

SIZES = {"vocab_size": 40, "d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 3, "num_heads": 2}
# name: (class, options)
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5EncoderModel", {**SIZES, "feed_forward_proj": "gated-gelu"}),
    "t5_first": ("T5EncoderModel", {**SIZES, "layer_norm_epsilon": 1e-4}),  # as it was published: relu, not gated
    "umt5": (
        "UMT5EncoderModel",
        {**SIZES, "relative_attention_num_buckets": 12, "relative_attention_max_distance": 20},
    ),
}
STORED = ("t5", "umt5")  # the other is only compared live
LENGTH = 150  # longer than the distances that T5 tells apart


def build(name: str) -> Any:
    """The torch model of that name, with weights that are not a fresh model's ones."""
    import torch
    import transformers

    torch.manual_seed(0)
    cls, options = CONFIGS[name]
    model = getattr(transformers, cls)(getattr(transformers, cls.replace("EncoderModel", "Config"))(**options)).eval()
    for parameter in model.parameters():
        parameter.data = (parameter.data + 0.3 * torch.randn_like(parameter)).half().float()
    return model


def inputs() -> tuple[np.ndarray, np.ndarray]:
    """Ids of two texts and what is text in them: one fills its place, the other is followed by padding."""
    random = np.random.default_rng(0)
    ids, mask = random.integers(2, 40, (2, LENGTH)), np.ones((2, LENGTH), np.int64)
    ids[1, 100], ids[1, 101:], mask[1, 101:] = 1, 0, 0
    return ids.astype(np.int32), mask.astype(np.int32)


def run(model: Any) -> dict[str, np.ndarray]:
    """What torch computes, whether it is told what is padding or not."""
    import torch

    ids, mask = (torch.from_numpy(array.astype(np.int64)) for array in inputs())
    with torch.no_grad():
        masked, plain = model(ids, attention_mask=mask), model(ids)
    return {"masked": masked.last_hidden_state.numpy(), "plain": plain.last_hidden_state.numpy()}


def make(folder: Path) -> None:
    """Write each checkpoint in the Hub's layout (float16 weights), and `<name>.npz` with its outputs."""
    for name in STORED:
        model = build(name)
        np.savez(folder / f"{name}.npz", **run(model))
        model.half().save_pretrained(folder / name)
