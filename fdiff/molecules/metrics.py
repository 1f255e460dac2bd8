"""How good molecules are: the four numbers that are reported of models of QM9 (Hoogeboom et al. 2022, section 5.1)."""

from __future__ import annotations

from typing import NamedTuple

from fdiff.molecules.bonds import stability
from fdiff.molecules.chemistry import to_smiles
from fdiff.molecules.graphs import Molecules


class Quality(NamedTuple):
    """Shares, of 0 to 1.

    Attributes:
        atom_stable: of all atoms, those that have as many bonds as they should.
        molecule_stable: of all molecules, those whose every atom is stable.
        valid: of all molecules, those that RDKit takes for possible.
        unique: of all molecules, those that are valid and whose largest fragment no other one before them has.
    """

    atom_stable: float
    molecule_stable: float
    valid: float
    unique: float


def evaluate(molecules: Molecules) -> Quality:
    """The four numbers, the bonds being those of `bond_orders`.

    Raises ValueError for an element whose valence is not known, or where RDKit is not installed.
    """
    stable = stability(molecules)
    smiles = [found for found in to_smiles(molecules, largest=True) if found is not None]
    count = len(stable.molecules)
    return Quality(
        float(stable.atoms.sum() / molecules.mask.sum()), float(stable.molecules.mean()),
        len(smiles) / count, len(set(smiles)) / count,
    )  # fmt: skip
