"""3-D molecules: batches of them, their files, their pictures, and how good they are."""

from fdiff.molecules.bonded import Graph, graph
from fdiff.molecules.bonds import bond_orders, stability
from fdiff.molecules.chemistry import to_rdkit, to_smiles
from fdiff.molecules.files import read, write
from fdiff.molecules.graphs import Molecule, Molecules, concatenate, molecule, pack, unpack
from fdiff.molecules.metrics import Quality, evaluate
from fdiff.molecules.pictures import draw

__all__ = [
    "Graph",
    "Molecule",
    "Molecules",
    "Quality",
    "bond_orders",
    "concatenate",
    "draw",
    "evaluate",
    "graph",
    "molecule",
    "pack",
    "read",
    "stability",
    "to_rdkit",
    "to_smiles",
    "unpack",
    "write",
]
