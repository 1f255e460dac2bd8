"""A batch of molecules as masked dense arrays, NumPy's or JAX's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

SYMBOLS = (
    "", "H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ar", "K", "Ca",
    "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr", "Rb", "Sr", "Y",
    "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I", "Xe", "Cs", "Ba", "La", "Ce",
    "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W", "Re", "Os", "Ir",
    "Pt", "Au", "Hg", "Tl", "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Th", "Pa", "U", "Np", "Pu", "Am", "Cm",
    "Bk", "Cf", "Es", "Fm", "Md", "No", "Lr", "Rf", "Db", "Sg", "Bh", "Hs", "Mt", "Ds", "Rg", "Cn", "Nh", "Fl", "Mc",
    "Lv", "Ts", "Og",
)  # fmt: skip
NUMBER_OF = {symbol: number for number, symbol in enumerate(SYMBOLS) if number}


class Molecules(NamedTuple):
    """b molecules of up to n atoms each, a pytree; where there is no atom everything is 0.

    Attributes:
        positions: (b, n, 3) in angstrom.
        numbers: (b, n) atomic numbers, whole; 0 where there is no atom.
        charges: (b, n) formal charges in units of the elementary charge, whole; none if not given.
        properties: arrays (b,) by their names, such as those of QM9.
        bonds: (b, n, n) their orders where they are known, as of conformers; else distances say them.
    """

    positions: Any
    numbers: Any
    charges: Any = None
    properties: Mapping[str, Any] = {}
    bonds: Any = None

    @property
    def mask(self) -> Any:
        """(b, n), True where there is an atom."""
        return self.numbers > 0

    @property
    def sizes(self) -> Any:
        """(b,) how many atoms each has."""
        return self.mask.sum(-1)

    def take(self, index: Any) -> Molecules:
        """The molecules that an index of the batch, a slice or an array, selects."""
        charges, bonds = (None if each is None else each[index] for each in (self.charges, self.bonds))
        properties = {name: values[index] for name, values in self.properties.items()}
        return Molecules(self.positions[index], self.numbers[index], charges, properties, bonds)


class Molecule(NamedTuple):
    """One molecule without padding: positions (n, 3) in angstrom, atomic numbers (n,), formal charges (n,).

    bonds: (n, n) their orders, or None where only distances say them.
    """

    positions: np.ndarray
    numbers: np.ndarray
    charges: np.ndarray
    bonds: np.ndarray | None = None

    @property
    def symbols(self) -> list[str]:
        """The elements of the atoms."""
        return [SYMBOLS[number] for number in self.numbers]


def molecule(positions: Any, elements: Sequence[int | str], charges: Any = None) -> Molecules:
    """A batch of one molecule.

    Args:
        positions: (n, 3) in angstrom.
        elements: n atomic numbers or symbols.
        charges: (n,) formal charges; 0 if not given.

    Raises ValueError for what is no element, no number or of another length.
    """
    numbers = [atomic_number(each) for each in elements]
    return pack([checked(positions, numbers, np.zeros(len(numbers), int) if charges is None else charges)])


def atomic_number(element: int | str) -> int:
    """The atomic number of an element given by it or by its symbol. Raises ValueError for what is none."""
    word = str(element).strip()
    number = int(word) if word.isascii() and word.isdigit() else NUMBER_OF.get(word.capitalize(), 0)
    if not 0 < number < len(SYMBOLS):
        raise ValueError(f"{word!r} is no element; give a symbol such as C, or an atomic number from 1 to 118")
    return number


def checked(positions: Any, numbers: Any, charges: Any) -> Molecule:
    """One molecule. Raises ValueError for no atoms, positions that are not finite and arrays of other shapes."""
    positions = np.asarray(positions, np.float64)
    numbers, charges = np.asarray(numbers, np.int64), np.asarray(charges, np.int64)
    if not len(numbers):
        raise ValueError("it has no atoms; give one or more")
    if positions.shape != (len(numbers), 3) or charges.shape != numbers.shape:
        raise ValueError(f"it has {len(numbers)} elements beside positions of shape {positions.shape} and charges of "
                         f"shape {charges.shape}; they must be (n,), (n, 3) and (n,)")
    if not np.isfinite(positions).all():
        atom = int(np.argwhere(~np.isfinite(positions))[0, 0])
        raise ValueError(f"the position of atom {atom + 1} is not finite; correct or remove the molecule")
    return Molecule(positions, numbers, charges)


def pack(several: Iterable[Molecule], properties: Mapping[str, Any] | None = None) -> Molecules:
    """A batch of them, padded to the largest, with bonds if all have such. Raises ValueError for none."""
    listed = list(several)
    if not listed:
        raise ValueError("there are no molecules; give one or more")
    shape = len(listed), max(len(one.numbers) for one in listed)
    positions, numbers, charges = np.zeros((*shape, 3)), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    bonds = None if any(one.bonds is None for one in listed) else np.zeros((*shape, shape[1]), np.int64)
    for i, one in enumerate(listed):
        count = len(one.numbers)
        positions[i, :count], numbers[i, :count], charges[i, :count] = one[:3]
        if bonds is not None and one.bonds is not None:
            bonds[i, :count, :count] = one.bonds
    return Molecules(positions, numbers, charges, dict(properties or {}), bonds)


def unpack(molecules: Molecules) -> Iterator[Molecule]:
    """Each molecule of the batch alone, its atoms in their order."""
    positions, numbers = np.asarray(molecules.positions, np.float64), np.asarray(molecules.numbers, np.int64)
    charges = np.zeros_like(numbers) if molecules.charges is None else np.asarray(molecules.charges, np.int64)
    for i, (where, what, charge) in enumerate(zip(positions, numbers, charges, strict=True)):
        there = what > 0
        bonds = None if molecules.bonds is None else np.asarray(molecules.bonds[i])[there][:, there]
        yield Molecule(where[there], what[there], charge[there], bonds)


def concatenate(several: Sequence[Molecules]) -> Molecules:
    """All molecules of these batches in one, their properties left out; frames of a molecule make a trajectory so."""
    return pack(one for batch in several for one in unpack(batch))
