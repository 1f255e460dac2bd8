"""IP-Adapters of random numbers, and what a tiny U-Net of diffusers sees with them.

The U-Net's weights are drawn by tests/adapters/tiny.py, as the test draws them; only results are kept.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))


def base(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The projection of IP-Adapter: 4 tokens of an embedding of 24."""
    return {"proj.weight": rng.standard_normal((48, 24)) / 5, "proj.bias": rng.standard_normal(48),
            "norm.weight": 1 + rng.standard_normal(12) / 5, "norm.bias": rng.standard_normal(12) / 5}  # fmt: skip


def plus(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """That of IP-Adapter plus: 3 tokens of patches of 24, two heads of 64, four layers as diffusers has."""
    found = {"latents": rng.standard_normal((1, 3, 16)), "proj_in.weight": rng.standard_normal((16, 24)) / 5}
    found |= {"proj_in.bias": rng.standard_normal(16), "proj_out.weight": rng.standard_normal((12, 16)) / 4}
    found |= {"proj_out.bias": rng.standard_normal(12), "norm_out.weight": 1 + rng.standard_normal(12) / 5}
    found |= {"norm_out.bias": rng.standard_normal(12) / 5}
    for i in range(4):
        for name in ("0.norm1", "0.norm2", "1.0"):
            found[f"layers.{i}.{name}.weight"] = 1 + rng.standard_normal(16) / 5
            found[f"layers.{i}.{name}.bias"] = rng.standard_normal(16) / 5
        for name, shape in {"0.to_q": (128, 16), "0.to_kv": (256, 16), "0.to_out": (16, 128)}.items():
            found[f"layers.{i}.{name}.weight"] = rng.standard_normal(shape) / shape[1] ** 0.5
        for name, shape in {"1.1": (64, 16), "1.3": (16, 64)}.items():
            found[f"layers.{i}.{name}.weight"] = rng.standard_normal(shape) / shape[1] ** 0.5
    return found


def attention(rng: np.random.Generator, widths: list[int]) -> dict[str, np.ndarray]:
    """Keys and values of each cross-attention: 1, 3, 5, ..."""
    return {
        f"{2 * i + 1}.to_{which}_ip.weight": rng.standard_normal((width, 12)) / 3
        for i, width in enumerate(widths)
        for which in "kv"
    }


WIDTHS = [8, 8, 8, 8, 8, 16]  # of the cross-attentions of tests/adapters/tiny.py's U-Net: down, up, middle
KINDS = {"base": base, "plus": plus}


def arrays(kind: str) -> dict[str, dict[str, np.ndarray]]:
    """The adapter of that kind, as the .bin files have it."""
    rng = np.random.default_rng(7)
    parts = {"image_proj": KINDS[kind](rng), "ip_adapter": attention(rng, WIDTHS)}
    return {part: {name: x.astype(np.float32) for name, x in found.items()} for part, found in parts.items()}


def inputs(kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(latents, text, features of pictures)."""
    rng = np.random.default_rng(8)
    shapes = ((2, 8, 8, 4), (2, 5, 12), (2, 24) if kind == "base" else (2, 6, 24))
    latents, text, features = (rng.standard_normal(shape, np.float32) for shape in shapes)
    return latents, text, features


def make(folder: Path) -> None:
    """Write base.bin as torch saves it, and the outputs of both kinds."""
    import torch
    from diffusers import UNet2DConditionModel

    from tests.adapters import tiny

    model = tiny.models()["unet"]
    found = {}
    for kind in KINDS:
        adapter = {part: {k: torch.from_numpy(x) for k, x in one.items()} for part, one in arrays(kind).items()}
        if kind == "base":
            torch.save(adapter, folder / "base.bin", _use_new_zipfile_serialization=False)
        with tempfile.TemporaryDirectory() as temporary:
            model.save_pretrained(temporary, tiny.random(model.shapes()))
            config = Path(temporary) / "config.json"
            config.write_text(json.dumps(json.loads(config.read_text()) | {"_diffusers_version": "0"}))
            unet = UNet2DConditionModel.from_pretrained(temporary)
        unet._load_ip_adapter_weights([adapter], low_cpu_mem_usage=False)
        for processor in unet.attn_processors.values():
            if hasattr(processor, "scale"):
                processor.scale = [0.6]
        latents, text, features = (torch.from_numpy(x) for x in inputs(kind))
        with torch.no_grad():
            added = {"image_embeds": [features[:, None]]}
            out = unet(latents.permute(0, 3, 1, 2), 7, text, added_cond_kwargs=added).sample
        found[kind] = out.permute(0, 2, 3, 1).numpy()
    np.savez_compressed(folder / "outputs.npz", **found)
