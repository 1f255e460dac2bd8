"""Stability, validity and uniqueness against the figures that are published of the same molecules."""

import json

import numpy as np
import pytest

from fdiff import molecules
from fdiff.cli import main
from fdiff.molecules import Molecules, bond_orders, evaluate, molecule, stability


def methane(stretch=1.0):
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
    return molecule(np.concatenate([np.zeros((1, 3)), 1.09 * stretch * corners]), "CHHHH")


def test_bonds_are_those_of_the_lengths():
    """Acetylene, formaldehyde and nitrogen by textbook distances; an atom of no known length has no bond."""
    acetylene = molecule([[0, 0, z] for z in (-1.66, -0.60, 0.60, 1.66)], "HCCH")
    orders = bond_orders(acetylene.positions, acetylene.numbers)[0]
    assert (orders == [[0, 1, 0, 0], [1, 0, 3, 0], [0, 3, 0, 1], [0, 0, 1, 0]]).all()
    for pair, distance, order in (("CO", 1.21, 2), ("CO", 1.43, 1), ("CO", 1.6, 0), ("NN", 1.10, 3), ("CX", 1.0, 0)):
        elements = [*pair[0], "Xe" if pair[1] == "X" else pair[1]]
        pair_of = molecule([[0, 0, 0], [0, 0, distance]], elements)
        assert bond_orders(pair_of.positions, pair_of.numbers)[0, 0, 1] == order


def test_an_atom_is_stable_with_its_valence():
    assert stability(methane()).molecules.all() and stability(methane()).atoms.all()
    broken = stability(methane(1.2))
    assert not broken.molecules.any() and not broken.atoms.any()
    with pytest.raises(ValueError, match=r"molecule number 1 has an atom of Xe, whose stability is not known"):
        stability(molecule(np.zeros((1, 3)), ["Xe"]))


def test_stable_molecules_of_g_schnet_are_as_many_as_published(shared_data):
    with np.load(shared_data / "datasets" / "qm9" / "gschnet_samples.npz") as found:
        drawn = Molecules(found["positions"], found["atomic_numbers"].astype(int))
    stable = stability(drawn)
    assert stable.molecules.sum() == 6805
    assert round(100 * stable.atoms.sum() / drawn.mask.sum(), 2) == 95.71


@pytest.mark.parametrize(("file", "figures"), [
    ("gschnet_samples.npz", (95.71, 68.05, 85.45, 80.31)), ("test.npz", (99.34, 95.22, 97.74, 97.74)),
])  # fmt: skip
@pytest.mark.sweep
def test_the_four_numbers_are_those_published(shared_data, file, figures):
    pytest.importorskip("rdkit")
    found = evaluate(molecules.read(shared_data / "datasets" / "qm9" / file))
    assert tuple(round(100 * share, 2) for share in found) == figures


def test_validity_and_uniqueness_count_molecules():
    """Twice methane and one carbon with five bonds: two of three are possible, one of three is a new one."""
    pytest.importorskip("rdkit")
    five = molecule(np.concatenate([np.asarray(methane().positions[0]), [[0, 0, -1.09]]]), "CHHHHH")
    found = evaluate(molecules.concatenate([methane(), methane(), five]))
    assert (found.valid, found.unique, found.molecule_stable) == (2 / 3, 1 / 3, 2 / 3)
    assert molecules.to_smiles(five) == [None]
    assert molecules.to_smiles(methane()) == ["[H]C([H])([H])[H]"]


def test_the_command_prints_them(tmp_path, capsys):
    pytest.importorskip("rdkit")
    molecules.write(tmp_path / "some.xyz", molecules.concatenate([methane(), methane(1.2)]))
    assert main(["evaluate", "molecules", str(tmp_path / "some.xyz")]) == 0
    shares = json.loads(capsys.readouterr().out)
    assert shares["molecule_stable"] == 0.5 and list(shares) == ["atom_stable", "molecule_stable", "valid", "unique"]
    for same in ("some.sdf", "some.npz", "qm9.xyz"):
        if same == "qm9.xyz":  # whose lines have charges, and other lines follow them
            frame = (tmp_path / "some.xyz").read_text().splitlines()
            atoms = [f"{line}\t-1.5*^-2" for line in frame[2:7]]
            told = "gdb 1" + "\t1.0" * 15
            (tmp_path / same).write_text("\n".join(["5", told, *atoms, "1341.3", "C\tC", "InChI=1S/CH4/h1H4", ""]))
        else:
            molecules.write(tmp_path / same, molecules.read(tmp_path / "some.xyz"))
        assert main(["evaluate", "molecules", str(tmp_path / same)]) == 0
        assert json.loads(capsys.readouterr().out) == (shares if same != "qm9.xyz" else dict.fromkeys(shares, 1.0))
    assert main(["evaluate", "molecules", str(tmp_path / "some.doc")]) == 2
    assert "does not end like a file of molecules" in capsys.readouterr().err
    assert main(["evaluate", "mine", str(tmp_path / "some.xyz")]) == 2
    assert "is of no use beside mine" in capsys.readouterr().err
    molecules.write(tmp_path / "xenon.xyz", molecules.molecule([[0, 0, 0]], ["Xe"]))
    assert main(["evaluate", "molecules", str(tmp_path / "xenon.xyz")]) == 2
    assert capsys.readouterr().err.startswith("fdiff: molecule number 1 has an atom of Xe")
