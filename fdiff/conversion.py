"""Checkpoints written anew: safetensors, names and layout of today."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convert import flax_weights
from fdiff import hub, rewriting
from fdiff.models.model import CONFIG
from fdiff.pipelines.components import find_component
from fdiff.pipelines.pipeline import INDEX, DiffusionPipeline
from fdiff.schedulers.scheduler import FILE as SCHEDULER_CONFIG
from fdiff.schedulers.scheduler import Scheduler


def convert(
    source: str | Path,
    folder: str | Path,
    *,
    dtype: Any = "float32",
    variant: str | None = None,
    tokenizer: str | Path | None = None,
    config: str | Path | None = None,
    progress: rewriting.Progress = lambda done, total: None,
) -> None:
    """Write a checkpoint of any layout in the Hub's layout of today; all of the folder appears, or nothing.

    Args:
        source: a pipeline or model on the Hub or in a folder, its weights .safetensors or torch's .bin; HF's own Flax
            weights (.msgpack); or a single file of Stable Diffusion.
        folder: where to write.
        dtype: of the weights that are written.
        variant: which weights of a repository to read, such as "fp16".
        tokenizer, config: for single files, see `fdiff.single_file.load`.
        progress: called with the bytes written and the bytes in all.

    Raises ValueError and OSError that name what is wrong with the source.
    """
    path = Path(source).expanduser()
    flax = path.is_dir() and any(found for name in flax_weights.NAMES for found in path.rglob(name))
    if path.is_file() or flax or path.suffix in (".safetensors", ".ckpt", ".msgpack"):
        rewriting.convert_file(path, folder, config=config, tokenizer=tokenizer, dtype=dtype, progress=progress)
    else:
        _convert_repository(source, folder, dtype, variant)


def _convert_repository(source: str | Path, folder: str | Path, dtype: Any, variant: str | None) -> None:
    file = hub.fetch(hub.Source(source), INDEX, CONFIG, SCHEDULER_CONFIG)
    if file.name == INDEX:
        pipe, params = DiffusionPipeline.from_pretrained(source, dtype=dtype, variant=variant)
        pipe.save_pretrained(folder, params)
    elif file.name == SCHEDULER_CONFIG:
        Scheduler.from_pretrained(source).save_pretrained(folder)
    else:
        config = hub.read_json(file)
        kind = config.get("_class_name") or (config.get("architectures") or [None])[0]
        if kind is None:
            raise ValueError(f"{file} does not say of which class it is; add _class_name to it")
        model, params = find_component(kind, source).from_pretrained(source, dtype=dtype, variant=variant)
        model.save_pretrained(folder, params)
