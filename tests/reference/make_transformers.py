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
    "flux2": (
        "Flux2Transformer2DModel",
        {
            "in_channels": 6,
            "num_layers": 2,
            "num_single_layers": 2,
            "attention_head_dim": 10,
            "num_attention_heads": 2,
            "joint_attention_dim": 12,
            "timestep_guidance_channels": 16,
            "mlp_ratio": 2.0,
            "axes_dims_rope": (2, 4, 2, 2),
        },
    ),
}
CONFIGS["flux2_klein"] = ("Flux2Transformer2DModel", {**CONFIGS["flux2"][1], "guidance_embeds": False})
FLUX = {
    "in_channels": 6,
    "num_layers": 3,
    "num_single_layers": 2,
    "attention_head_dim": 10,
    "num_attention_heads": 2,
    "joint_attention_dim": 12,
    "pooled_projection_dim": 7,
    "axes_dims_rope": (2, 4, 4),
}
CONFIGS["flux"] = ("FluxTransformer2DModel", {**FLUX, "guidance_embeds": True})
CONFIGS["flux_schnell"] = ("FluxTransformer2DModel", {**FLUX, "out_channels": 5})
DIT = {
    "num_attention_heads": 2,
    "attention_head_dim": 10,
    "in_channels": 3,
    "num_layers": 2,
    "sample_size": 8,
    "num_embeds_ada_norm": 5,
}
CONFIGS["dit"] = ("DiTTransformer2DModel", {**DIT, "out_channels": 6})
CONFIGS["dit_affine"] = (
    "DiTTransformer2DModel",
    {**DIT, "sample_size": 16, "attention_bias": False, "norm_elementwise_affine": True, "activation_fn": "geglu"},
)
PIXART = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 3,
    "out_channels": 6,
    "num_layers": 2,
    "sample_size": 8,
    "cross_attention_dim": 24,
    "caption_channels": 10,
}
CONFIGS["pixart"] = ("PixArtTransformer2DModel", {**PIXART, "use_additional_conditions": True})
CONFIGS["pixart_sigma"] = ("PixArtTransformer2DModel", {**PIXART, "interpolation_scale": 2, "sample_size": 16})
CONFIGS["pixart_affine"] = (
    "PixArtTransformer2DModel",
    {**PIXART, "sample_size": 128, "caption_channels": None, "cross_attention_dim": 10, "attention_bias": False,
     "norm_elementwise_affine": True, "out_channels": None, "activation_fn": "geglu"},
)  # fmt: skip
SANA = {
    "num_attention_heads": 2,
    "attention_head_dim": 6,
    "in_channels": 3,
    "out_channels": 6,
    "num_layers": 2,
    "num_cross_attention_heads": 3,
    "cross_attention_head_dim": 4,
    "cross_attention_dim": 12,
    "caption_channels": 10,
    "sample_size": 4,
}
CONFIGS["sana"] = ("SanaTransformer2DModel", SANA)
CONFIGS["sana_sprint"] = (
    "SanaTransformer2DModel",
    {**SANA, "qk_norm": "rms_norm_across_heads", "guidance_embeds": True, "attention_bias": True, "patch_size": 2,
     "norm_elementwise_affine": True, "out_channels": None},
)  # fmt: skip
CONFIGS["sana_4k"] = ("SanaTransformer2DModel", {**SANA, "interpolation_scale": 2.0})
STORED = ("z_image", "flux2", "flux", "dit")  # the others are only compared live


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
    """Inputs as fdiff takes them: a batch of two, with texts of several lengths or pictures to keep to."""
    random = np.random.default_rng(0)
    if name in ("flux", "flux_schnell"):
        arrays = inputs("flux2")
        arrays["pooled_projections"] = random.standard_normal((2, 7)).astype(np.float32)
        arrays["img_ids"], arrays["txt_ids"] = arrays["img_ids"][:, :3], np.zeros((5, 3), np.float32)
        if name == "flux":  # what a ControlNet gives for three blocks and two
            samples = random.standard_normal((3, 2, 24, 20)).astype(np.float32)
            arrays["controlnet_block_samples"] = list(samples[:2])
            arrays["controlnet_single_block_samples"] = list(samples[2:])
        else:
            del arrays["guidance"]
        return arrays
    if name.startswith("flux2"):
        img_ids = np.array([[t, row, column, 0] for t in (0, 10) for row in range(3) for column in range(4)])
        arrays = {
            "hidden_states": random.standard_normal((2, 24, 6)).astype(np.float32),
            "encoder_hidden_states": random.standard_normal((2, 5, 12)).astype(np.float32),
            "timestep": np.array([0.25, 0.9], np.float32),
            "img_ids": img_ids.astype(np.float32),
            "txt_ids": np.array([[0, 0, 0, i] for i in range(5)], np.float32),
            "guidance": np.array([4.0, 2.5], np.float32),
        }
        return {key: array for key, array in arrays.items() if key != "guidance" or name == "flux2"}
    if name.startswith("dit"):
        return {
            "sample": random.standard_normal((2, 8, 8, 3)).astype(np.float32),
            "timestep": np.array([3, 900]),
            "class_labels": np.array([4, 5]),
        }
    if name.startswith("pixart"):
        return {
            "hidden_states": random.standard_normal((2, 6, 10, 3)).astype(np.float32),
            "encoder_hidden_states": random.standard_normal((2, 5, 10)).astype(np.float32),
            "timestep": np.array([3, 900]),
            "encoder_attention_mask": np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32),
            "resolution": np.array([[48, 80], [96, 32]], np.float32),
        }
    if name.startswith("sana"):
        arrays = {
            "hidden_states": random.standard_normal((2, 6, 10, 3)).astype(np.float32),
            "encoder_hidden_states": random.standard_normal((2, 5, 10)).astype(np.float32),
            "timestep": np.array([3, 900], np.float32),
            "encoder_attention_mask": np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32),
        }
        return {**arrays, "guidance": np.array([0.45, 0.2], np.float32)} if name == "sana_sprint" else arrays
    mask = np.ones((2, 40), np.int32)
    mask[0, 5:] = 0
    return {
        "sample": random.standard_normal((2, 6, 8, 4)).astype(np.float32),
        "timestep": np.array([0.25, 0.9], np.float32),
        "encoder_hidden_states": random.standard_normal((2, 40, 10)).astype(np.float32),
        "encoder_attention_mask": mask,
    }


def run(name: str, model: Any, arrays: dict[str, Any]) -> np.ndarray:
    """What torch computes from those inputs. Z-Image takes lists, each picture with one frame."""
    import torch

    def tensor(value: Any) -> Any:
        return [tensor(item) for item in value] if isinstance(value, list) else torch.from_numpy(value)

    if name.startswith("flux"):
        with torch.no_grad():
            return model(**{key: tensor(value) for key, value in arrays.items()}).sample.numpy()
    if name.startswith("dit"):
        x, t, labels = (torch.from_numpy(arrays[key]) for key in ("sample", "timestep", "class_labels"))
        with torch.no_grad():
            return model(x.permute(0, 3, 1, 2), t, labels).sample.permute(0, 2, 3, 1).numpy()
    if name.startswith("pixart"):
        x, text, t, mask, size = map(torch.from_numpy, arrays.values())
        told = {"resolution": size, "aspect_ratio": size[:, :1] / size[:, 1:]}
        with torch.no_grad():
            output = model(x.permute(0, 3, 1, 2), text, t, told, encoder_attention_mask=mask).sample
        return output.permute(0, 2, 3, 1).numpy()
    if name.startswith("sana"):
        given = {key: tensor(value) for key, value in arrays.items()}
        given["hidden_states"] = given["hidden_states"].permute(0, 3, 1, 2)
        with torch.no_grad():
            return model(**given).sample.permute(0, 2, 3, 1).numpy()
    x, t, text = (torch.from_numpy(arrays[key]) for key in ("sample", "timestep", "encoder_hidden_states"))
    mask = torch.from_numpy(arrays["encoder_attention_mask"]).bool()
    texts = [tokens[seen] for tokens, seen in zip(text, mask, strict=True)]
    with torch.no_grad():
        output = model(list(x.permute(0, 3, 1, 2).unsqueeze(2)), t, texts).sample
    return torch.stack(output).squeeze(2).permute(0, 2, 3, 1).numpy()


def make(folder: Path) -> None:
    """Write each checkpoint in the Hub's layout (float16 weights), and `<name>.npz` with its output."""
    for name in STORED:
        model = build(name)
        np.savez(folder / f"{name}.npz", output=run(name, model, inputs(name)))
        model.half().save_pretrained(folder / name)
