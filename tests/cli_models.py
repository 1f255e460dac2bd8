"""Tiny models, and what is added to them, on disk, for the tests of the command."""

import shutil
from pathlib import Path

import jax
import numpy as np
from PIL import Image
from safetensors.numpy import save_file

import fdiff
from convert import weights
from fdiff.adapters import lora
from tests.adapters import tiny
from tests.convert import original_names


def stable_diffusion(folder: Path, reference: Path) -> Path:
    """A whole Stable Diffusion of 16 x 16 pixels."""
    model = folder / "squares"
    shutil.copytree(reference / "pipelines" / "sd", model)
    shutil.copytree(reference / "clip" / "tokenizer", model / "tokenizer")
    return model


def added(folder: Path, model: Path) -> dict[str, str]:
    """Files for the model: a LoRA, a word, an IP-Adapter beside its image encoder, and pictures."""
    _, params = fdiff.DiffusionPipeline.from_pretrained(model)
    lora.save(folder / "style", tiny.adapter({"unet": params["unet"]}))
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    save_file({"<cat>": draw(16)}, folder / "word.safetensors")
    sources = [name for name in lora.layers(params["unet"]) if name.endswith("attn2.to_k")]
    adapter = {"image_proj.proj.weight": draw(64, 24), "image_proj.proj.bias": draw(64),
               "image_proj.norm.weight": draw(16), "image_proj.norm.bias": draw(16)}  # fmt: skip
    for i in range(len(sources)):
        adapter |= {f"ip_adapter.{2 * i + 1}.to_{which}_ip.weight": draw(8, 16) for which in "kv"}
    (folder / "eyes").mkdir()
    save_file(adapter, folder / "eyes" / "eyes.safetensors")
    encoder = fdiff.CLIPVisionModelWithProjection(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, patch_size=56,
        projection_dim=24,
    )  # fmt: skip
    encoder.save_pretrained(folder / "eyes" / "image_encoder", encoder.init_params(jax.random.key(0)))
    for name, turn in (("photo", 0), ("edges", 90)):
        Image.linear_gradient("L").rotate(turn).resize((16, 16)).convert("RGB").save(folder / f"{name}.png")
    mask = Image.new("L", (16, 16))
    mask.paste(255, (4, 4, 12, 12))
    mask.save(folder / "mask.png")
    return {
        "lora": str(folder / "style" / "pytorch_lora_weights.safetensors"), "word": str(folder / "word.safetensors"),
        "eyes": str(folder / "eyes" / "eyes.safetensors"), "photo": str(folder / "photo.png"),
        "edges": str(folder / "edges.png"), "mask": str(folder / "mask.png"),
    }  # fmt: skip


def one_file(file: Path, model: Path) -> Path:
    """The model in one file, under the names that its makers gave."""
    _, params = fdiff.DiffusionPipeline.from_pretrained(model)
    arrays = {name: {key: array.make() for key, array in weights.arrays(tree).items()} for name, tree in params.items()}
    named = {
        "model.diffusion_model.": original_names.unet(arrays["unet"]),
        "first_stage_model.": original_names.vae(arrays["vae"], lambda x: x[..., None, None]),
        "cond_stage_model.transformer.": arrays["text_encoder"],
    }
    full = {prefix + name: np.ascontiguousarray(x) for prefix, part in named.items() for name, x in part.items()}
    save_file(full, file)
    return file
