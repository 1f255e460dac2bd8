"""Molecules as chemists write them down, atoms and bonds without positions: from SMILES and .sdf files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fdiff.molecules.chemistry import rdkit_chem, silent

KINDS = 22  # of bonds that RDKit knows; local edges that are none have those behind
SINGLE, TRIPLE, AROMATIC = 1, 3, 12


class Graph(NamedTuple):
    """The atoms of a molecule and the bonds between them.

    Attributes:
        numbers: (n,) atomic numbers, hydrogens too.
        bonds: (n, n) the kind of the bond between two atoms: 0 none, 1 to 3 single to triple, 12 aromatic, and RDKit's
            other numbers.
        charges: (n,) formal charges.
        orders: (n, n) the order of each bond, those of aromatic ones 1 and 2 by turns.
    """

    numbers: np.ndarray
    bonds: np.ndarray
    charges: np.ndarray
    orders: np.ndarray


def graph(molecule: str | Path | Graph | Any) -> Graph:
    """The graph of a SMILES, of an .sdf file of one molecule, of an rdkit.Chem.Mol, or as it is given.

    Hydrogens that are not spelt out are added, behind the other atoms. Raises ValueError for a text that is no SMILES,
    a file that holds no molecule or several, arrays that are no graph, or where RDKit is needed and not installed;
    OSError for a file that cannot be read.
    """
    if isinstance(molecule, Graph):
        return _checked(molecule)
    chem = rdkit_chem()
    if isinstance(molecule, chem.Mol):
        mol = molecule
    elif str(molecule).lower().endswith(".sdf"):
        mol = _of_file(chem, Path(molecule))
    else:
        with silent():
            mol = chem.MolFromSmiles(str(molecule))
        if mol is None or not mol.GetNumAtoms():
            raise ValueError(f"molecule is {str(molecule)!r:.80}, which is no SMILES and no .sdf file; give such a one")
    mol = chem.AddHs(mol)
    whole = chem.Mol(mol)
    chem.Kekulize(whole, clearAromaticFlags=True)
    bonds, orders = np.zeros((2, mol.GetNumAtoms(), mol.GetNumAtoms()), np.int64)
    for each, array in ((mol, bonds), (whole, orders)):
        for bond in each.GetBonds():
            i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
            array[i, j] = array[j, i] = int(bond.GetBondType())
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    charges = np.array([atom.GetFormalCharge() for atom in mol.GetAtoms()])
    orders = np.where(orders > TRIPLE, SINGLE, orders)  # such as dative ones, for which .sdf has no sign
    return _checked(Graph(numbers, bonds, charges, orders))


def edge_kinds(bonds: np.ndarray, order: int) -> np.ndarray:
    """The kinds of local edges (n, n): those of bonds, 23 between atoms two bonds apart, 24 three, up to `order`.

    0 is no edge (Xu et al. 2022, appendix).
    """
    reached = step = np.eye(len(bonds), dtype=bool) | (bonds > 0)
    kinds = bonds.copy()
    for hops in range(2, order + 1):
        farther = reached @ step
        kinds[farther & ~reached] = KINDS + hops - 1
        reached = farther
    return kinds


def _of_file(chem: Any, file: Path) -> Any:
    blocks = [block for block in file.read_text(encoding="utf-8", errors="replace").split("$$$$") if block.strip()]
    if len(blocks) != 1:
        raise ValueError(f"{file} holds {len(blocks)} molecules; give a file of one")
    with silent():
        mol = chem.MolFromMolBlock(blocks[0], removeHs=False)
    if mol is None or not mol.GetNumAtoms():
        raise ValueError(f"{file} is no .sdf file of a molecule that chemistry allows; correct it, or give its SMILES")
    if mol.GetNumAtoms() > 1 and not mol.GetNumBonds():  # as ASE writes them; hydrogens would be added to each atom
        raise ValueError(f"{file} says {mol.GetNumAtoms()} atoms and no bonds; write them, or give the SMILES")
    return mol


def _checked(given: Graph) -> Graph:
    numbers, bonds, charges, orders = (np.asarray(each) for each in given)
    shapes = tuple(each.shape for each in (numbers, bonds, charges, orders))
    n = len(numbers) if numbers.ndim == 1 else 0
    if not n or shapes != ((n,), (n, n), (n,), (n, n)):
        raise ValueError(f"the graph's numbers, bonds, charges and orders have shapes {', '.join(map(str, shapes))}; "
                         "they must be (n,), (n, n), (n,) and (n, n)")
    known = numbers.min() > 0 and bonds.min() >= 0 and bonds.max() < KINDS
    if not known or (bonds != bonds.T).any() or bonds.diagonal().any():
        raise ValueError("the graph's numbers must be atomic numbers, and its bonds symmetric, RDKit's kinds from 0 to "
                         f"{KINDS - 1}, and none from an atom to itself")
    return Graph(numbers.astype(np.int64), bonds.astype(np.int64), charges.astype(np.int64), orders.astype(np.int64))
