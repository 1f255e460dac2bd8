"""Tiny autoencoders with inputs and outputs: AutoencoderKL (also tiled), with masks, AutoencoderTiny, VQModel."""

from pathlib import Path
from typing import Any

import numpy as np

TWO = {
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "sample_size": 16,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
}
TINY = {
    "encoder_block_out_channels": (8, 8, 8),
    "decoder_block_out_channels": (8, 8, 8),
    "num_encoder_blocks": (1, 2, 1),
    "num_decoder_blocks": (2, 1, 1),
}
DC = {
    "latent_channels": 4,
    "attention_head_dim": 4,
    "encoder_block_types": ("ResBlock", "EfficientViTBlock", "EfficientViTBlock"),
    "decoder_block_types": ("ResBlock", "EfficientViTBlock", "EfficientViTBlock"),
    "encoder_block_out_channels": (4, 8, 16),
    "decoder_block_out_channels": (4, 8, 16),
    "encoder_layers_per_block": (1, 2, 1),
    "decoder_layers_per_block": (1, 1, 1),
    "encoder_qkv_multiscales": ((), (5,), (5, 3)),
    "decoder_qkv_multiscales": ((), (5,), (3,)),
    "scaling_factor": 0.41407,
}
# name: (class, options)
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "kl": ("AutoencoderKL", TWO),
    "kl_attention": (
        "AutoencoderKL",
        {
            **TWO,
            "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
            "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
            "use_quant_conv": False,
            "use_post_quant_conv": False,
            "mid_block_add_attention": False,
            "latent_channels": 6,
            "act_fn": "gelu",
            "layers_per_block": 2,
        },
    ),
    "asymmetric": (
        "AsymmetricAutoencoderKL",
        {
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "down_block_out_channels": (4, 4, 8, 8),
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "up_block_out_channels": (4, 8, 16, 16),
            "layers_per_up_block": 2,
            "norm_num_groups": 4,
        },
    ),
    "flux2": (
        "AutoencoderKLFlux2",
        {**TWO, "layers_per_block": 1, "latent_channels": 6, "decoder_block_out_channels": (8, 12)},
    ),
    "tiny": ("AutoencoderTiny", TINY),
    "tiny_flux": ("AutoencoderTiny", {**TINY, "latent_channels": 16, "act_fn": "mish", "latent_shift": 0.25}),
    "vq": ("VQModel", {**TWO, "num_vq_embeddings": 32, "vq_embed_dim": 5}),
    "vq_spatial": (  # SpatialNorm has 32 groups
        "VQModel",
        {**TWO, "block_out_channels": (32, 32), "norm_type": "spatial", "lookup_from_codebook": True},
    ),
}
CONFIGS["dc"] = ("AutoencoderDC", DC)
CONFIGS["dc_conv"] = ("AutoencoderDC", {**DC, "upsample_block_type": "interpolate", "downsample_block_type": "Conv"})
CONFIGS["dc_batch"] = (
    "AutoencoderDC",
    {**DC, "encoder_layers_per_block": (0, 1, 1), "decoder_layers_per_block": (0, 1, 1),
     "decoder_block_types": ("ResBlock", "ResBlock", "EfficientViTBlock"), "decoder_act_fns": ("relu", "relu", "silu"),
     "decoder_norm_types": ("batch_norm", "batch_norm", "rms_norm"), "encoder_out_shortcut": False,
     "decoder_in_shortcut": False, "encoder_qkv_multiscales": ((), (), ())},
)  # fmt: skip
STORED = ("kl", "asymmetric", "flux2", "tiny", "vq")  # the others are only compared live


def build(name: str) -> Any:
    """The torch model of that name, with weights that are not a fresh model's zeros and ones."""
    import diffusers
    import torch

    torch.manual_seed(0)
    cls, config = CONFIGS[name]
    model = getattr(diffusers, cls)(**config).eval()
    for parameter in model.parameters():
        parameter.data = (parameter.data + 0.1 * torch.randn_like(parameter)).half().float()
    if cls == "AutoencoderKLFlux2":
        model.bn.running_mean += torch.linspace(-1, 1, 24).half()
        model.bn.running_var += torch.linspace(-0.5, 1, 24).half()
        model.bn.running_var = model.bn.running_var.half().float()
    for one, buffer in model.named_buffers():
        if cls == "AutoencoderDC" and "running" in one:
            buffer += torch.rand_like(buffer)
    return model


def pictures(name: str) -> np.ndarray:
    """Two pictures in [-1, 1]."""
    factor = {"tiny": 4, "tiny_flux": 4, "asymmetric": 8, "flux2": 4, "dc": 4, "dc_conv": 4, "dc_batch": 4}.get(name, 2)
    return np.random.default_rng(0).uniform(-1, 1, (2, 5 * factor, 6 * factor, 3)).astype(np.float32)


def mask() -> np.ndarray:
    """Where the two pictures are to be painted anew: squares of pixels, not of latents."""
    mask = np.zeros((2, 40, 48, 1), np.float32)
    mask[0, 5:21, 9:30], mask[1, :12, 20:] = 1, 1
    return mask


def large_picture(width: int) -> np.ndarray:
    """A picture of two tiles, one above the other, or of four if it is wider than 12; the last are smaller."""
    return np.random.default_rng(1).uniform(-1, 1, (1, 22, width, 3)).astype(np.float32)


def indices(name: str) -> np.ndarray:
    """Numbers of vectors of a VQModel's table."""
    return np.random.default_rng(2).integers(0, 32, (2, 5, 6)).astype(np.int32)


def run(name: str, model: Any, width: int) -> dict[str, np.ndarray]:
    """What torch computes, as (b, h, w, c)."""
    import torch
    from diffusers import Flux2KleinPipeline

    def to_torch(x: np.ndarray) -> Any:
        return torch.from_numpy(x).permute(0, 3, 1, 2)

    def to_numpy(x: Any) -> np.ndarray:
        return x.permute(0, 2, 3, 1).numpy()

    cls, config = CONFIGS[name]
    with torch.no_grad():
        x = to_torch(pictures(name))
        encoded = model.encode(x)
        result = {"whole": to_numpy(model(x).sample)}
        if "AutoencoderKL" in cls:
            posterior = encoded.latent_dist
            result |= {"mean": to_numpy(posterior.mean), "logvar": to_numpy(posterior.logvar)}
            result["kl"] = posterior.kl().numpy()
            result["decoded"] = to_numpy(model.decode(posterior.mean).sample)
        else:
            latents = encoded.latent if cls == "AutoencoderDC" else encoded.latents
            result |= {"mean": to_numpy(latents), "decoded": to_numpy(model.decode(latents).sample)}
        if name == "flux2":
            squares = Flux2KleinPipeline._patchify_latents(posterior.mean)
            deviation = (model.bn.running_var + model.config.batch_norm_eps).sqrt().view(1, -1, 1, 1)
            result["scaled"] = to_numpy((squares - model.bn.running_mean.view(1, -1, 1, 1)) / deviation)
        if name == "asymmetric":
            seen = {"image": x, "mask": to_torch(mask())}
            result["masked"] = to_numpy(model.decode(posterior.mean, **seen).sample)
        if name == "kl":
            model.enable_tiling()
            posterior = model.encode(to_torch(large_picture(width))).latent_dist
            result |= {"tiled_mean": to_numpy(posterior.mean), "tiled_logvar": to_numpy(posterior.logvar)}
            result["tiled_decoded"] = to_numpy(model.decode(posterior.mean).sample)
        if cls == "VQModel":
            quantized, loss, (_, _, numbers) = model.quantize(encoded.latents)
            result |= {"quantized": to_numpy(quantized), "loss": loss.numpy()}
            result["numbers"] = numbers.reshape(2, 5, 6).numpy()
        if config.get("lookup_from_codebook"):
            shape = (2, 5, 6, 3)
            numbers = torch.from_numpy(indices(name)).reshape(2, -1)
            decoded = model.decode(numbers, force_not_quantize=True, shape=shape).sample
            result["looked_up"] = to_numpy(decoded)
    return result


def make(folder: Path) -> None:
    """Write each checkpoint in the Hub's layout (float16 weights), and `<name>.npz` with its outputs."""
    for name in STORED:
        model = build(name)
        np.savez(folder / f"{name}.npz", **run(name, model, 12))
        model.half().save_pretrained(folder / name)
