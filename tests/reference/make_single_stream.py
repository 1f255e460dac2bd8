"""Tiny diffusion transformers of one stream, with inputs and outputs."""

from pathlib import Path
from typing import Any

import numpy as np

ERNIE_IMAGE = {
    "hidden_size": 20,
    "num_attention_heads": 2,
    "num_layers": 2,
    "ffn_hidden_size": 14,
    "in_channels": 6,
    "out_channels": 6,
    "text_in_dim": 12,
    "rope_axes_dim": (2, 4, 4),
}
KREA2 = {
    "in_channels": 6,
    "num_layers": 2,
    "attention_head_dim": 10,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 14,
    "timestep_embed_dim": 16,
    "text_hidden_dim": 12,
    "num_text_layers": 3,
    "text_num_attention_heads": 2,
    "text_num_key_value_heads": 1,
    "text_intermediate_size": 10,
    "num_layerwise_text_blocks": 1,
    "num_refiner_text_blocks": 1,
    "axes_dims_rope": (2, 4, 4),
}
FLUX3 = {
    "in_channels": 6,
    "cond_in_channels": 5,
    "num_layers": 1,
    "num_single_layers": 2,
    "attention_head_dim": 10,
    "num_attention_heads": 2,
    "joint_attention_dim": 12,
    "timestep_channels": 16,
    "mlp_ratio": 2.0,
    "axes_dims_rope": (2, 4, 2, 2),
}
QWEN21 = {
    "in_channels": 6,
    "out_channels": 5,
    "num_layers": 2,
    "attention_head_dim": 10,
    "num_attention_heads": 2,
    "context_in_dim": 12,
    "mlp_ratio": 2,
    "axes_dims_rope": (2, 4, 4),
}
LUMINA2 = {
    "in_channels": 3,
    "out_channels": 5,
    "hidden_size": 24,
    "num_layers": 2,
    "num_refiner_layers": 1,
    "num_attention_heads": 4,
    "num_kv_heads": 2,
    "multiple_of": 10,
    "axes_dim_rope": (2, 2, 2),
    "cap_feat_dim": 12,
}
KEPT_AT = (1, 4)
# name: (class, options)
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "ernie_image": ("ErnieImageTransformer2DModel", ERNIE_IMAGE),
    "ernie_image_patches": (
        "ErnieImageTransformer2DModel",
        {**ERNIE_IMAGE, "patch_size": 2, "out_channels": 3, "text_in_dim": 20},
    ),
    "krea2": ("Krea2Transformer2DModel", KREA2),
    "lumina2": ("Lumina2Transformer2DModel", LUMINA2),
    "lumina2_narrow": (
        "Lumina2Transformer2DModel",
        {**LUMINA2, "out_channels": None, "patch_size": 1, "num_kv_heads": 4, "ffn_dim_multiplier": 0.4},
    ),
    "flux3": ("Flux3Transformer2DModel", FLUX3),
    "qwenimage21": ("QwenImage21Transformer2DModel", QWEN21),
    "qwenimage21_kept": ("QwenImage21Transformer2DModel", QWEN21),
    "qwenimage21_told": ("QwenImage21Transformer2DModel", {**QWEN21, "causal_condition": False}),
    "flux3_kept": ("Flux3Transformer2DModel", {**FLUX3, "flow_map": True}),
}
STORED = ("ernie_image", "krea2", "lumina2", "flux3_kept", "qwenimage21_kept")  # the others are only compared live


def build(name: str) -> Any:
    """The torch model of that name."""
    return build_of(*CONFIGS[name])


def build_of(cls: str, options: dict[str, Any]) -> Any:
    """A torch model of that class, with weights that are not a fresh model's zeros and ones."""
    import diffusers
    import torch

    torch.manual_seed(0)
    model = getattr(diffusers, cls)(**options).eval()
    for parameter in model.parameters():
        parameter.data = (parameter.data + 0.1 * torch.randn_like(parameter)).half().float()
    return model


def inputs(name: str) -> dict[str, Any]:
    """Inputs as fdiff takes them: a batch of two, with texts of two lengths or pictures to keep to."""
    random = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        return random.standard_normal(shape).astype(np.float32)

    mask = np.array([[1] * 5 + [0] * 2, [1] * 7])
    if name.startswith("ernie_image"):
        return {
            "sample": draw(2, 6, 8, 6),
            "timestep": np.array([250, 900], np.float32),
            "encoder_hidden_states": draw(2, 7, CONFIGS[name][1]["text_in_dim"]),
            "encoder_attention_mask": mask,
        }
    if name.startswith("lumina2"):
        return {
            "sample": draw(2, 6, 8, 3),
            "timestep": np.array([0.25, 0.9], np.float32),
            "encoder_hidden_states": draw(2, 7, 12),
            "encoder_attention_mask": mask,
        }
    if name.startswith("qwenimage21"):
        arrays = {
            "sample": draw(2, 4, 6, 6), "timestep": np.array([0.25, 0.9], np.float32),
            "encoder_hidden_states": draw(2, 7, 12), "encoder_attention_mask": mask,
        }  # fmt: skip
        if name == "qwenimage21_kept":
            arrays["kept"] = [draw(2, 2, 4, 6), draw(2, 2, 2, 6)]
        return arrays
    ids = np.array([[0, row, column, 0] for row in range(3) for column in range(4)], np.float32)
    arrays = {"hidden_states": draw(2, 12, 6), "timestep": np.array([0.25, 0.9], np.float32)}
    if name == "krea2":
        ids, text_ids = ids[:, :3], np.zeros((7, 3), np.float32)
        text = draw(2, 7, 3, 12)
        return arrays | {
            "encoder_hidden_states": text, "img_ids": ids, "txt_ids": text_ids, "encoder_attention_mask": mask
        }  # fmt: skip
    arrays["encoder_hidden_states"] = draw(2, 7, 12)
    arrays |= {"img_ids": ids, "txt_ids": np.array([[0, 0, 0, i] for i in range(7)], np.float32)}
    if name == "flux3_kept":
        arrays |= {"image_cond_hidden_states": draw(2, 6, 5), "image_cond_ids": ids[:6] + 3}
        arrays["target_timestep"] = np.array([0.2, 0.5], np.float32)
    return arrays


def run_qwenimage21(model: Any, arrays: dict[str, Any]) -> np.ndarray:
    """What Qwen-Image-2.1 gives of the last picture; those to keep to stand at KEPT_AT, a token for four latents."""
    import torch

    pictures = [torch.from_numpy(one) for one in (*arrays.get("kept", ()), arrays["sample"])]
    batch, shapes = len(pictures[0]), [[(1, *one.shape[1:3]) for one in pictures]]
    counts = [one.shape[1] * one.shape[2] for one in pictures]
    mask = torch.zeros(batch, 7 + counts[-1] // 4, dtype=torch.bool)
    mask[:, 7:] = True
    for start, count in zip(KEPT_AT, counts[:-1], strict=False):
        mask[:, start : start + count // 4] = True
    latents = torch.cat([one.flatten(1, 2) for one in pictures], dim=1)
    text, t, there = (
        torch.from_numpy(arrays[key]) for key in ("encoder_hidden_states", "timestep", "encoder_attention_mask")
    )
    with torch.no_grad():
        output = model(latents, text, t, shapes * batch, mask, there.bool()).sample
    return output[:, -counts[-1] :].reshape(*pictures[-1].shape[:3], -1).numpy()


def run(name: str, model: Any, arrays: dict[str, Any]) -> np.ndarray:
    """What torch computes from those inputs."""
    import torch

    if name.startswith("qwenimage21"):
        return run_qwenimage21(model, arrays)
    tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
    with torch.no_grad():
        if name.startswith("ernie_image"):
            x, lengths = tensors["sample"].permute(0, 3, 1, 2), tensors["encoder_attention_mask"].sum(1)
            output = model(x, tensors["timestep"], tensors["encoder_hidden_states"], lengths).sample
            return output.permute(0, 2, 3, 1).numpy()
        if name.startswith("lumina2"):
            x = tensors.pop("sample").permute(0, 3, 1, 2)
            return model(x, **tensors).sample.permute(0, 2, 3, 1).numpy()
        if name == "krea2":
            tensors["position_ids"] = torch.cat([tensors.pop("txt_ids"), tensors.pop("img_ids")])
            tensors["encoder_attention_mask"] = tensors["encoder_attention_mask"].bool()
        return model(**tensors).sample.numpy()


def make(folder: Path) -> None:
    """Write each checkpoint in the Hub's layout (float16 weights), and `<name>.npz` with its output."""
    for name in STORED:
        model = build(name)
        np.savez(folder / f"{name}.npz", output=run(name, model, inputs(name)))
        model.half().save_pretrained(folder / name)
