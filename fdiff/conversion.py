"""Checkpoints written anew: safetensors, names and layout of today."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fdiff import hub
from fdiff.models.model import CONFIG
from fdiff.pipelines.components import find_component
from fdiff.pipelines.pipeline import INDEX, DiffusionPipeline
from fdiff.schedulers.scheduler import FILE as SCHEDULER_CONFIG


def convert_repository(
    source: str | Path, folder: str | Path, *, dtype: Any = "float32", variant: str | None = None
) -> None:
    """Read a pipeline or a model, its weights .safetensors or torch's .bin, and write it with weights of that dtype.

    Raises ValueError for a folder that holds neither.
    """
    file = hub.fetch(hub.Source(source), INDEX, CONFIG, SCHEDULER_CONFIG)
    if file.name == INDEX:
        pipe, params = DiffusionPipeline.from_pretrained(source, dtype=dtype, variant=variant)
        pipe.save_pretrained(folder, params)
        return
    config = hub.read_json(file)
    kind = config.get("_class_name") or (config.get("architectures") or [None])[0]
    if kind is None:
        raise ValueError(f"{file} does not say of which class it is; add _class_name to it")
    component: Any = find_component(kind, source)
    if file.name == SCHEDULER_CONFIG:
        component.from_pretrained(source).save_pretrained(folder)
        return
    model, params = component.from_pretrained(source, dtype=dtype, variant=variant)
    model.save_pretrained(folder, params)
