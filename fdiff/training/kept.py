"""What is computed once of each sample and kept: arrays in files, which are mapped into memory."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fdiff import hub

FACTS, NUMBER = "facts.json", "number"


@dataclasses.dataclass(frozen=True)
class Kept:
    """Samples whose arrays are rows of files, and "number", which sample of the data each is of."""

    folder: Path
    classes: tuple[str, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:  # for worker processes, which map the files themselves
        return Kept, (self.folder, self.classes)

    @functools.cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """Each array, (n, ...), by its name."""
        return {file.stem: np.load(file, mmap_mode="r") for file in sorted(self.folder.glob("*.npy"))}

    def __len__(self) -> int:
        return len(self.arrays[NUMBER])

    def __getitem__(self, i: int) -> Mapping[str, Any]:
        return {name: array[i] for name, array in self.arrays.items()}

    def name(self, i: int) -> str:
        """The number and the folder."""
        return f"sample {self.arrays[NUMBER][i]} in {self.folder}"


def keep(
    folder: Path, facts: Mapping[str, Any], count: int, computed: Iterable[tuple[list[int], Mapping[str, Any]]]
) -> Kept:
    """The arrays in the folder if they are those of the same facts, or else what is computed, written there.

    Args:
        folder: its own; files of the same names are replaced.
        facts: JSON, all that the arrays depend on.
        count: how many samples there are at most.
        computed: (numbers of samples, their arrays (b, ...) by name), drawn from only where nothing is kept yet.

    Raises OSError where the disk is full.
    """
    wanted = dict(facts)
    if (folder / FACTS).is_file() and hub.read_json(folder / FACTS) == wanted:
        return Kept(folder)
    (folder / FACTS).unlink(missing_ok=True)  # so that what is cut off from here on is computed again
    numbers: list[int] = []
    arrays: dict[str, Any] = {}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with hub.staged(folder) as temporary:
        for some, found in computed:
            for name, array in found.items():
                if name not in arrays:
                    shape = (count, *array.shape[1:])
                    arrays[name] = np.lib.format.open_memmap(temporary / f"{name}.npy", "w+", array.dtype, shape)
                arrays[name][len(numbers) : len(numbers) + len(some)] = array
            numbers += some
        for array in arrays.values():
            array.flush()
        np.save(temporary / f"{NUMBER}.npy", np.array(numbers))
    hub.write_json(folder / FACTS, wanted)
    return Kept(folder)


def digest(texts: Iterable[str]) -> str:
    """What tells texts, such as the names of samples, from others, as a fact."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
