"""Molecules as samples to train on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fdiff import molecules
from fdiff.molecules.files import ENDINGS
from fdiff.molecules.graphs import Molecules

EACH = 4  # atoms by which the sizes of groups differ


def holds_molecules(path: Path) -> bool:
    """Whether it is a file of molecules, an .npz by the arrays that it has."""
    if path.suffix.lower() != ".npz":
        return path.suffix.lower() in ENDINGS
    try:
        with np.load(path) as arrays:
            return "positions" in arrays
    except (OSError, ValueError, EOFError):  # what else it is, others say
        return False


def open_molecules(path: Path) -> MoleculeFile:
    """The molecules of a file. Raises ValueError as `fdiff.molecules.read`."""
    return MoleculeFile(str(path), molecules.read(path))


@dataclasses.dataclass(frozen=True, eq=False)
class MoleculeFile:
    """The molecules of a file as samples: mappings of "molecule", a batch of one."""

    file: str
    molecules: Molecules
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.molecules.numbers)

    def __getitem__(self, i: int) -> Mapping[str, Any]:
        return {"molecule": self.molecules.take(slice(i, i + 1))}

    def name(self, i: int) -> str:
        """The number and the file."""
        return f"molecule {i + 1} of {self.file}"


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedMolecules:
    """Molecules as a network has them: samples of "x" (n, 3 + features), "mask" (n,) and "context" (n, properties).

    n is that of the largest molecule of a sample's group, since work grows with its square. places: n of each sample;
    groups: the numbers of samples of one n each.
    """

    file: str
    x: np.ndarray
    mask: np.ndarray
    context: np.ndarray
    places: np.ndarray
    groups: tuple[np.ndarray, ...]
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Mapping[str, Any]:
        n = self.places[i]
        return {"x": self.x[i, :n], "mask": self.mask[i, :n], "context": self.context[i, :n]}

    def name(self, i: int) -> str:
        """The number and the file."""
        return f"molecule {i + 1} of {self.file}"


def encoded_molecules(
    file: str, x: np.ndarray, mask: np.ndarray, context: np.ndarray, batch_size: int
) -> EncodedMolecules:
    """The molecules in groups of nearly one size, each of a batch or more where there are so many."""
    sizes = mask.sum(1)
    places = -(-sizes // EACH) * EACH
    groups: list[np.ndarray] = []
    kept = np.zeros(0, np.int64)
    for n in np.unique(places):
        kept = np.append(kept, np.flatnonzero(places == n))
        if len(kept) >= batch_size:
            groups.append(kept)
            kept = kept[:0]
    if len(kept):  # the largest, which are too few
        groups[-1:] = [np.concatenate([*groups[-1:], kept])]
    for group in groups:
        places[group] = sizes[group].max()
    return EncodedMolecules(file, x, mask, context, places, tuple(groups))
