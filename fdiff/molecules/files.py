"""Molecules in files: .xyz, .sdf and .npz, told by their names."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from fdiff import hub
from fdiff.molecules import sdf, xyz
from fdiff.molecules.graphs import SYMBOLS, Molecules, pack, unpack

ENDINGS = (".xyz", ".sdf", ".npz")
NUMBERS = ("atomic_numbers", "numbers", "charges")  # what .npz files call atomic numbers; QM9's say charges


def ending(path: str | Path) -> str:
    """The ending of a file of molecules. Raises ValueError for another one."""
    found = Path(path).suffix.lower()
    if found not in ENDINGS:
        raise ValueError(f"{path} does not end like a file of molecules; call it something{' or '.join(ENDINGS)}")
    return found


def read(path: str | Path) -> Molecules:
    """The molecules of a file.

    .xyz, plain or with extended columns, one frame or many, and QM9's own; .sdf of V2000, all its molecules; .npz of
    positions (b, n, 3), atomic_numbers (b, n) (QM9's calls them charges), formal_charges and properties (b,).

    Raises ValueError, one sentence, for a file that is not what its name says, is damaged, holds no molecules, no
    elements, or positions that are not finite; OSError where it cannot be read.
    """
    kind, file = ending(path), Path(path)
    try:
        if kind == ".npz":
            return _arrays(file)
        text = file.read_bytes().decode()
        if kind == ".sdf":
            return pack(sdf.parse(text))
        found = list(xyz.parse(text))
        names = set.intersection(*(set(told) for _, told in found)) if found else ()
        return pack(
            (one for one, _ in found), {name: np.array([told[name] for _, told in found]) for name in sorted(names)}
        )
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text, so no {kind} file; name it by what it is") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def write(path: str | Path, molecules: Molecules) -> None:
    """Write the molecules into one file, .xyz, .sdf or .npz, moved into place when it is whole.

    A trajectory is a .xyz of its frames, see `concatenate`. Raises ValueError for another ending, and for positions
    that are not finite.
    """
    kind = ending(path)
    if not np.isfinite(np.asarray(molecules.positions)[np.asarray(molecules.mask)]).all():
        raise ValueError("the molecules have positions that are not finite, so they are not written")
    if kind == ".npz":
        stream = io.BytesIO()
        arrays: dict[str, Any] = {"positions": molecules.positions, "atomic_numbers": molecules.numbers}
        arrays |= {} if molecules.charges is None else {"formal_charges": molecules.charges}
        np.savez_compressed(stream, **arrays, **molecules.properties)
        content = stream.getvalue()
    else:
        content = (xyz if kind == ".xyz" else sdf).text(list(unpack(molecules))).encode()
    with hub.replacing(Path(path)) as part:
        part.write_bytes(content)


def _arrays(file: Path) -> Molecules:
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as found:
            arrays: dict[str, Any] = {name: found[name] for name in found.files}
    except (zipfile.BadZipFile, ValueError, EOFError, KeyError, AttributeError):
        raise ValueError("it is no .npz file of arrays, or is damaged; name it by what it is") from None
    name = next((name for name in NUMBERS if name in arrays), None)
    if name is None or "positions" not in arrays:
        raise ValueError(f"it holds {', '.join(arrays) or 'nothing'}; it needs positions and atomic_numbers")
    positions, numbers = arrays["positions"], arrays[name]
    if numbers.ndim != 2 or positions.shape != (*numbers.shape, 3) or not numbers.size:
        raise ValueError(f"positions of shape {positions.shape} and {name} of shape {numbers.shape} are no molecules; "
                         "they must be (b, n, 3) and (b, n)")
    there = numbers > 0
    if not np.issubdtype(numbers.dtype, np.integer) or numbers.max() >= len(SYMBOLS) or not there.any(1).all():
        raise ValueError(f"{name} must be whole numbers from 1 to {len(SYMBOLS) - 1}, 0 where there is no atom, and "
                         "each molecule needs an atom")
    finite = np.isfinite(positions).all(-1) | ~there
    if not finite.all():
        raise ValueError(f"molecule number {int(np.argwhere(~finite)[0, 0]) + 1} has a position that is not finite; "
                         "correct or remove it")
    charges = arrays.get("formal_charges")
    if charges is not None and charges.shape != numbers.shape:
        raise ValueError(f"formal_charges of shape {charges.shape} are not those of {name} of shape {numbers.shape}")
    properties = {key: values for key, values in arrays.items()
                  if values.shape == numbers.shape[:1] and values.dtype.kind in "fiu" and key != "num_atoms"}
    whole = np.where(there, numbers, 0).astype(np.int64)
    return Molecules(np.where(there[..., None], positions, 0), whole, charges, properties)
