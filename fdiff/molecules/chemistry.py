"""What RDKit, the extra `molecules`, makes of molecules: its own objects, SMILES, and whether chemistry allows them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from fdiff.molecules.bonds import orders_of
from fdiff.molecules.graphs import Molecule, Molecules, unpack


def to_rdkit(molecules: Molecules) -> list[Any]:
    """rdkit.Chem.Mol of each molecule, with its positions, charges and bonds, those of `bond_orders` if none are given.

    They are not sanitized: Chem.SanitizeMol tells which of them chemistry does not allow. Raises ValueError where RDKit
    is not installed.
    """
    chem = rdkit_chem()
    return [_mol(chem, one) for one in unpack(molecules)]


def to_smiles(molecules: Molecules, *, largest: bool = False) -> list[str | None]:
    """The canonical SMILES of each molecule, hydrogens spelt out; None for one that chemistry does not allow.

    largest: of the largest fragment alone, the first of several. Raises ValueError where RDKit is not installed.
    """
    chem = rdkit_chem()
    with silent():
        return [_smiles(chem, mol, largest) for mol in to_rdkit(molecules)]


def _mol(chem: Any, one: Molecule) -> Any:
    mol = chem.RWMol()
    for number, charge in zip(one.numbers, one.charges, strict=True):
        atom = chem.Atom(int(number))
        atom.SetFormalCharge(int(charge))
        mol.AddAtom(atom)
    orders = orders_of(one)
    kinds = (None, chem.BondType.SINGLE, chem.BondType.DOUBLE, chem.BondType.TRIPLE)
    for i in range(len(one.numbers)):
        for j in range(i):
            if orders[i, j]:
                mol.AddBond(i, j, kinds[orders[i, j]])
    conformer = chem.Conformer(len(one.numbers))
    conformer.SetPositions(one.positions)
    mol.AddConformer(conformer)
    return mol.GetMol()


def _smiles(chem: Any, mol: Any, largest: bool) -> str | None:
    try:
        chem.SanitizeMol(mol)
        if largest:
            mol = max(chem.GetMolFrags(mol, asMols=True), key=lambda each: each.GetNumAtoms())
        found: str = chem.MolToSmiles(mol)
        return found
    except ValueError:  # as RDKit's own are
        return None


def rdkit_chem() -> Any:
    """rdkit.Chem. Raises ValueError where RDKit is not installed."""
    try:
        from rdkit import Chem
    except ImportError:
        raise ValueError('this needs RDKit; install it with pip install "fdiff-jax[molecules]"') from None
    return Chem


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Within, RDKit says nothing of each molecule that it refuses."""
    from rdkit import rdBase

    block = rdBase.BlockLogs()
    try:
        yield
    finally:
        del block
