"""What stands in for the Hub while pages run: tiny checkpoints under the names that the pages use.

They have the layout, the classes and the names of the real ones and random weights, so that code runs as it is typed,
quickly and without a network. What they draw is noise: a page shows pictures of models that fdiff ships.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from docs.making.pages import ROOT
from tests.fake_hub import FakeHub, Files

REFERENCE = ROOT / "tests" / "reference"


def folder(path: str | Path, under: str = "") -> Files:
    """Every file of a folder, as files below `under`."""
    root = REFERENCE / path
    return {f"{under}{file.relative_to(root).as_posix()}": file.read_bytes()
            for file in sorted(root.rglob("*")) if file.is_file()}


def index(**entries: object) -> Files:
    """A model_index.json."""
    return {"model_index.json": json.dumps(entries).encode()}


def stable_diffusion() -> Files:
    """A Stable Diffusion 1.5."""
    return folder("pipelines/sd") | folder("clip/tokenizer", "tokenizer/")


def stable_diffusion_xl() -> Files:
    """An SDXL."""
    tokenizers = folder("clip/tokenizer", "tokenizer/") | folder("clip/tokenizer_2", "tokenizer_2/")
    return folder("pipelines/xl") | tokenizers


def ddpm() -> Files:
    """A pipeline of the time when everything lay beside the index."""
    parts = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]}
    scheduler = {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "beta_schedule": "linear"}
    return {
        **folder("unet_2d/attention"),
        **index(_class_name="DDPMPipeline", **parts),
        "scheduler_config.json": json.dumps(scheduler).encode(),
    }


REPOSITORIES: dict[str, Callable[[], Files]] = {
    "google/ddpm-cat-256": ddpm,
    "stable-diffusion-v1-5/stable-diffusion-v1-5": stable_diffusion,
    "stabilityai/stable-diffusion-xl-base-1.0": stable_diffusion_xl,
    "lllyasviel/control_v11p_sd15_canny": lambda: folder("pipelines/controlnet"),
    "openai/clip-vit-large-patch14": lambda: folder("clip/tokenizer"),
    "madebyollin/taesd": lambda: folder("autoencoders/tiny"),
}


def fill(hub: FakeHub) -> None:
    """Have the hub serve the stand-ins."""
    for name, files in REPOSITORIES.items():
        hub.add(name, files())
