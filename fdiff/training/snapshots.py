"""Averages of two lengths that a training keeps as it goes, of which `post_hoc` makes one of any length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from convert import safetensors, weights
from fdiff import hub
from fdiff.training.averages import Snapshot

WIDTHS = (0.05, 0.10)  # as Karras et al. 2024 keep them


def write(folder: Path, done: int, averages: Sequence[Any]) -> None:
    """Keep the averages of `WIDTHS` after so many steps, a file each."""
    folder.mkdir(parents=True, exist_ok=True)
    for width, params in zip(WIDTHS, averages, strict=True):
        with hub.replacing(folder / f"{done:08d}-{width:.2f}.safetensors") as part:
            safetensors.write(part, weights.arrays(_named(params)))


def read(folder: Path, done: int, like: Any) -> list[Snapshot]:
    """What is kept of the first so many steps, as trees like that one.

    Raises ValueError where nothing is kept, or something of another network.
    """
    names, found = list(_named(like)), []
    for file in sorted(folder.glob("*.safetensors")):
        step, width = file.stem.split("-")
        if int(step) > done:
            continue
        tensors = weights.tensors(file)
        if set(tensors) != set(names):
            raise ValueError(f"{file} is of another network; remove it, or resume with the same options")
        leaves = [np.array(tensors[name].read()) for name in names]
        found.append(Snapshot(float(width), int(step), jax.tree.unflatten(jax.tree.structure(like), leaves)))
    if not found:
        raise ValueError(f"{folder} holds no averages, of which one of another length could be made; train with "
                         "--keep-averages")
    return found


def _named(tree: Any) -> dict[str, Any]:
    """The leaves by their ways, in order."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}
