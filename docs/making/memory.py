"""The tables of docs/memory.md: how many parameters each component has, and what a network call takes besides.

    python -m docs.making.memory CONFIGS           the parameters, of the config.json files below a folder
    python -m docs.making.memory CONFIGS --work    what XLA sets aside for one call of each, in float32
    python -m docs.making.memory CONFIGS --estimate    what fdiff.memory says of it, without compiling

No weights are read: shapes follow from the configs, and what a program takes is what its compiler says
(`compiled.memory_analysis()`, on a CPU). CONFIGS holds OWNER/NAME/COMPONENT/config.json, as on the Hub.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from fdiff import memory, registry
from fdiff.models import Model

CHECKPOINTS = {  # a folder of configs, and the size of a picture in pixels
    "runwayml/stable-diffusion-v1-5": 512,
    "runwayml/stable-diffusion-inpainting": 512,
    "stabilityai/stable-diffusion-2-1": 768,
    "stabilityai/stable-diffusion-xl-base-1.0": 1024,
    "stabilityai/stable-diffusion-xl-refiner-1.0": 1024,
    "stabilityai/stable-diffusion-x4-upscaler": 512,
    "lllyasviel/control_v11p_sd15_canny": 512,
    "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers/image_encoder": 224,
    "CompVis/ldm-celebahq-256": 256,
    "google/ddpm-cat-256": 256,
    "google/ddpm-cifar10-32": 32,
    "black-forest-labs/FLUX.1-dev": 1024,
    "black-forest-labs/FLUX.2-klein-4B": 1024,
    "black-forest-labs/FLUX.2-klein-9B": 1024,
    "Tongyi-MAI/Z-Image-Turbo": 1024,
}
GIGA = 1e9


def models(folder: Path) -> Iterator[tuple[str, Model]]:
    """The models of a checkpoint that fdiff has, under the names of their folders."""
    index = folder / "model_index.json"
    listed = json.loads(index.read_text()) if index.exists() else None
    for file in sorted([folder / "config.json", *folder.glob("*/config.json")]):
        part = file.parent.name if file.parent != folder else "model"
        if not file.exists() or part == "safety_checker" or (listed is not None and part not in listed):
            continue
        config = json.loads(file.read_text())
        name = config.get("_class_name") or config.get("architectures", [""])[0]
        found = registry.lookup(name, Model, config)
        if found is not None:
            yield part, found.from_config(config)


def parameters(configs: Path) -> Iterator[str]:
    """Rows of Markdown: what each component of the checkpoints has, and what all take in two dtypes."""
    yield "| checkpoint | parameters, in millions | float32 | bfloat16 |"
    yield "| --- " * 4 + "|"
    for name in CHECKPOINTS:
        if found := {part: model.count_parameters() for part, model in models(configs / name)}:
            total = sum(found.values())
            parts = ", ".join(f"{part} {number / 1e6:,.1f}" for part, number in found.items())
            yield f"| {name} | {parts} | {4 * total / GIGA:.2f} GB | {2 * total / GIGA:.2f} GB |"


def taken(function: Any, model: Model, dtype: Any, *shapes: tuple[int, ...]) -> float:
    """What XLA sets aside for function(params, *arrays), in GB, besides parameters and arrays."""
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), model.shapes())
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    compiled = jax.jit(function).lower(params, *arrays).compile({"xla_backend_optimization_level": "0"})
    return compiled.memory_analysis().temp_size_in_bytes / GIGA


def calls(configs: Path, dtype: Any) -> Iterator[str]:
    """Rows of Markdown: what a call of the U-Net, two pictures at once for guidance, and the decoding of one take."""
    yield "| checkpoint | picture | U-Net, guided | decoder |"
    yield "| --- " * 4 + "|"
    for name, size in CHECKPOINTS.items():
        found: Any = dict(models(configs / name))
        unet, vae = found.get("unet"), found.get("vae")
        if unet is None or vae is None or not hasattr(unet, "cross_attention_dim"):
            continue
        side = size // 2 ** (len(vae.block_out_channels) - 1)

        def call(params: Any, x: jax.Array, tokens: jax.Array, *added: jax.Array, unet: Any = unet) -> jax.Array:
            more = {"added_cond_kwargs": dict(zip(("text_embeds", "time_ids"), added, strict=True))} if added else {}
            labels = {"class_labels": jnp.zeros(2, int)} if unet.num_class_embeds else {}
            return unet.apply({"params": params}, x, 1.0, tokens, **more, **labels)

        def decode(params: Any, z: jax.Array, vae: Any = vae) -> jax.Array:
            return vae.apply({"params": params}, z, method="decode")

        added = [(2, 1280), (2, 5 if "refiner" in name else 6)] if unet.addition_embed_type else []
        inputs = [(2, side, side, unet.in_channels), (2, 77, unet.cross_attention_dim), *added]
        work = taken(call, unet, dtype, *inputs), taken(decode, vae, dtype, (1, side, side, vae.latent_channels))
        yield f"| {name} | {size} x {size} | {work[0]:.2f} GB | {work[1]:.2f} GB |"


def estimates(configs: Path) -> Iterator[str]:
    """Rows of Markdown: what `fdiff.memory` expects a guided picture to take besides the parameters."""
    yield "| checkpoint | picture | estimated |"
    yield "| --- " * 3 + "|"
    for name, size in CHECKPOINTS.items():
        found: dict[str, Any] = dict(models(configs / name))
        if "unet" not in found:
            continue
        held = memory.activations(found, (size, size), 1, True)
        yield f"| {name} | {size} x {size} | {held / GIGA:.2f} GB |"


def main(argv: list[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", type=Path)
    parser.add_argument("--work", action="store_true")
    parser.add_argument("--estimate", action="store_true")
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args(argv)
    if arguments.work:
        rows = calls(arguments.configs, arguments.dtype)
    else:
        rows = estimates(arguments.configs) if arguments.estimate else parameters(arguments.configs)
    for row in rows:
        sys.stdout.write(f"{row}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
