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
    """Molecules as a network has them: samples of "x" (n, 3 + features), "mask" (n,) and "context" (n, properties)."""

    file: str
    x: np.ndarray
    mask: np.ndarray
    context: np.ndarray
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Mapping[str, Any]:
        return {"x": self.x[i], "mask": self.mask[i], "context": self.context[i]}

    def name(self, i: int) -> str:
        """The number and the file."""
        return f"molecule {i + 1} of {self.file}"
