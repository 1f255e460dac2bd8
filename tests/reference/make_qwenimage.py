"""Tiny transformers of Qwen-Image and autoencoders of Wan and Qwen-Image, with inputs and outputs."""

from pathlib import Path
from typing import Any

import numpy as np

TRANSFORMER: dict[str, Any] = {
    "in_channels": 8,
    "out_channels": 2,
    "num_layers": 2,
    "attention_head_dim": 10,
    "num_attention_heads": 2,
    "joint_attention_dim": 12,
    "axes_dims_rope": (2, 4, 4),
}
# name: (class, options)
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "plain": TRANSFORMER,
    "kept": TRANSFORMER,
    "kept_still": {**TRANSFORMER, "zero_cond_t": True, "out_channels": None},
    "layered": {**TRANSFORMER, "use_additional_t_cond": True, "use_layer3d_rope": True},
}
CONTROLNET: dict[str, Any] = {
    key: value for key, value in TRANSFORMER.items() if key != "out_channels"
} | {"extra_condition_channels": 3}
VAE: dict[str, Any] = {
    "base_dim": 4,
    "z_dim": 3,
    "dim_mult": [1, 2, 3],
    "num_res_blocks": 1,
    "temperal_downsample": [True, True],
    "latents_mean": [0.5, -1.0, 0.0],
    "latents_std": [3.0, 1.0, 2.0],
}
# name: (class, options)
AUTOENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "vae": ("AutoencoderKLQwenImage", VAE),
    "wan": ("AutoencoderKLWan", {**VAE, "temperal_downsample": [False, True], "decoder_base_dim": 6, "in_channels": 4}),
}


def build(name: str) -> Any:
    """The torch transformer of that name."""
    import diffusers

    return built(diffusers.QwenImageTransformer2DModel, TRANSFORMERS[name])


def built(cls: Any, options: dict[str, Any]) -> Any:
    """A torch model of that class, with weights that are not a fresh model's."""
    import torch

    torch.manual_seed(0)
    model = cls(**options).eval()
    for parameter in model.parameters():
        parameter.data = (parameter.data + 0.1 * torch.randn_like(parameter)).half().float()
    return model


def inputs(name: str) -> dict[str, Any]:
    """Inputs as fdiff takes them: a batch of two, of odd and even sides, with texts of two lengths."""
    random = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        return random.standard_normal(shape).astype(np.float32)

    arrays = {
        "sample": draw(2, 3, 4, 8) if name != "layered" else draw(2, 3, 3, 4, 8),
        "timestep": np.array([0.25, 0.9], np.float32),
        "encoder_hidden_states": draw(2, 7, 12),
    }
    if name != "layered":
        arrays["encoder_hidden_states_mask"] = np.array([[1] * 5 + [0] * 2, [1] * 7])
    if name == "layered":
        arrays |= {"kept": [draw(2, 3, 4, 8)], "additional_t_cond": np.array([0, 1])}
    elif name == "plain":
        arrays["controlnet_block_samples"] = [draw(2, 12, 20), draw(2, 12, 20)]
    else:
        arrays["kept"] = [draw(2, 2, 5, 8), draw(2, 9, 2, 8)]
    return arrays


def control_inputs() -> dict[str, Any]:
    """Those of a ControlNet."""
    arrays = inputs("plain")
    del arrays["controlnet_block_samples"]
    picture = np.random.default_rng(1).standard_normal((2, 3, 4, 11)).astype(np.float32)
    return arrays | {"controlnet_cond": picture, "conditioning_scale": 0.7}


def run_controlnet(model: Any, arrays: dict[str, Any]) -> np.ndarray:
    """What torch computes from those inputs, for all blocks."""
    import torch

    tensors = {name: torch.from_numpy(array) for name, array in arrays.items() if isinstance(array, np.ndarray)}
    x, picture = (tensors.pop(name).reshape(2, 12, -1) for name in ("sample", "controlnet_cond"))
    with torch.no_grad():
        said = model(x, picture, arrays["conditioning_scale"], img_shapes=[[(1, 3, 4)]] * 2, **tensors)
    return np.stack([one.numpy() for one in said.controlnet_block_samples])


def run(model: Any, arrays: dict[str, Any]) -> np.ndarray:
    """What torch computes from those inputs, of what is drawn."""
    import torch

    arrays = dict(arrays)
    sample, kept = arrays.pop("sample"), arrays.pop("kept", [])
    layers = list(sample.swapaxes(0, 1)) if sample.ndim == 5 else [sample]
    tokens = [one.reshape(2, -1, 8) for one in (*layers, *kept)]
    shapes = [[(1, *one.shape[1:3]) for one in (*layers, *kept)]] * 2
    more = {name: torch.from_numpy(array) for name, array in arrays.items() if isinstance(array, np.ndarray)}
    samples = [torch.from_numpy(one) for one in arrays.get("controlnet_block_samples", [])] or None
    with torch.no_grad():
        out = model(torch.from_numpy(np.concatenate(tokens, axis=1)), img_shapes=shapes,
                    controlnet_block_samples=samples, **more).sample  # fmt: skip
    drawn = out[:, : len(layers) * layers[0].shape[1] * layers[0].shape[2]]
    return drawn.reshape(*sample.shape[:-1], -1).numpy()


def video(channels: int = 3, frames: int = 9) -> np.ndarray:
    """A batch of two, as fdiff takes them."""
    return np.random.default_rng(0).uniform(-1, 1, (2, frames, 8, 12, channels)).astype(np.float32)


def run_autoencoder(model: Any, video: np.ndarray) -> dict[str, np.ndarray]:
    """What torch makes of videos, and of a part of their latents, which then do not all lie at the bounds."""
    import torch

    with torch.no_grad():
        found = model.encode(torch.from_numpy(video).permute(0, 4, 1, 2, 3)).latent_dist
        arrays = {"mean": found.mean, "logvar": found.logvar, "decoded": model.decode(found.mean / 10).sample}
    return {name: array.permute(0, 2, 3, 4, 1).numpy() for name, array in arrays.items()}


def make(folder: Path) -> None:
    """Write each checkpoint in the Hub's layout (float16 weights), and `<name>.npz` with its output."""
    for name in ("kept_still",):
        model = build(name)
        np.savez(folder / f"{name}.npz", output=run(model, inputs(name)))
        model.half().save_pretrained(folder / name)
    import diffusers

    model = built(diffusers.AutoencoderKLQwenImage, VAE)
    np.savez(folder / "vae.npz", **run_autoencoder(model, video()))
    model.half().save_pretrained(folder / "vae")
