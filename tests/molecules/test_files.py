"""Files that chemists have: what is read, what is written, and what is refused."""

import numpy as np
import pytest

from fdiff import images, molecules
from fdiff.cli import main
from fdiff.molecules import molecule

WATER = molecule([[0, 0, 0.117], [0, 0.757, -0.469], [0, -0.757, -0.469]], "OHH")
TETRAHEDRON = np.array([[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
AMMONIUM = molecule(TETRAHEDRON * 0.59, "NHHHH", [1, 0, 0, 0, 0])
METHYL = molecule([[0, 0, 0], [0, 1.08, 0], [0.935, -0.54, 0], [-0.935, -0.54, 0]], "CHHH")
SOME = molecules.concatenate([WATER, AMMONIUM, METHYL])


@pytest.mark.parametrize(("ending", "within"), [("xyz", 1e-8), ("sdf", 5e-5), ("npz", 0)])
def test_what_is_written_is_read(tmp_path, ending, within):
    file = tmp_path / f"some.{ending}"
    molecules.write(file, SOME._replace(properties={"mu": np.array([1.8, 0.0, 0.0])}))
    back = molecules.read(file)
    assert np.abs(back.positions - SOME.positions).max() <= within
    assert (back.numbers == SOME.numbers).all()
    if ending != "xyz":
        assert (back.charges == SOME.charges).all()
    assert list(back.properties) == (["mu"] if ending == "npz" else [])


def test_rdkit_reads_as_many_atoms_as_were_written(tmp_path):
    """No hydrogen is added, to a radical neither, and charges, bonds and many molecules of one file arrive."""
    chem = pytest.importorskip("rdkit.Chem")
    molecules.write(tmp_path / "some.sdf", SOME)
    mols = list(chem.SDMolSupplier(str(tmp_path / "some.sdf"), removeHs=False))
    assert [chem.AddHs(mol).GetNumAtoms() for mol in mols] == [3, 5, 4]
    assert [mol.GetNumBonds() for mol in mols] == [2, 4, 3]
    assert [chem.GetFormalCharge(mol) for mol in mols] == [0, 1, 0]
    assert [chem.MolToSmiles(chem.RemoveHs(mol)) for mol in mols] == ["O", "[NH4+]", "[CH3]"]
    again = chem.SDWriter(str(tmp_path / "again.sdf"))
    for mol in mols:
        again.write(mol)
    again.close()
    back = molecules.read(tmp_path / "again.sdf")
    assert (back.numbers == SOME.numbers).all() and (back.charges == SOME.charges).all()
    assert np.abs(back.positions - SOME.positions).max() < 1e-4


def test_rdkit_reads_our_xyz_of_numbers_too_small_for_plain_ones(tmp_path):
    """RDKit's reader of .xyz knows no exponents; 1e-9 angstrom is written without."""
    chem = pytest.importorskip("rdkit.Chem")
    molecules.write(tmp_path / "a.xyz", molecule([[1e-9, 0, -2e-7], [0, 0, 0.74]], "HH"))
    text = (tmp_path / "a.xyz").read_text()
    assert text.splitlines()[0] == "2" and "e" not in text and len(text.splitlines()[2].split()) == 4
    assert chem.MolFromXYZBlock(text).GetNumAtoms() == 2


QM9 = """2
gdb 7\t1.0\t2.0\t3.0\t0.5\t6.3\t-0.25\t0.08\t0.33\t19.0\t0.05\t-76.4\t-76.39\t-76.38\t-76.41\t6.0
O\t 0.0\t 1.5*^-2\t 6.9*^-4\t-0.4
H\t 0.0\t 0.96\t -1.1*^2\t 0.2
1341.3\t1341.3
O\tO
InChI=1S/H2O/h1H2\tInChI=1S/H2O/h1H2
"""
EXTENDED = """2
Properties=species:S:1:initial_charges:R:1:pos:R:3:forces:R:3 pbc="F F F"
C 0.1 1.0 2.0 3.0 9 9 9
H -0.1 1e-5 2.5D-1 4 9 9 9

"""


def test_the_dialects_of_xyz_are_read(tmp_path):
    """QM9's own exponents and lines behind the atoms, ASE's columns, Fortran's numbers, several frames."""
    (tmp_path / "qm9.xyz").write_text(QM9 * 2)
    found = molecules.read(tmp_path / "qm9.xyz")
    assert np.allclose(found.positions, [[[0, 1.5e-2, 6.9e-4], [0, 0.96, -110]]] * 2, rtol=0, atol=1e-12)
    assert found.properties["U0"].tolist() == [-76.4] * 2 and found.properties["gap"][0] == 0.33
    (tmp_path / "ase.xyz").write_text(EXTENDED)
    assert np.allclose(molecules.read(tmp_path / "ase.xyz").positions, [[[1, 2, 3], [1e-5, 0.25, 4]]])


def test_real_files_are_read(shared_data):
    g2 = molecules.read(shared_data / "datasets" / "g2" / "g2.xyz")
    assert g2.numbers.shape == (162, 14) and (g2.sizes > 0).all()
    qm9 = molecules.read(shared_data / "datasets" / "qm9" / "test.npz")
    assert len(qm9.positions) == 13083 and len(qm9.properties) == 23


REFUSED = {
    "sdf.xyz": ("molecule 1\n fdiff\n\n", "line 1 is 'molecule 1' where the number of atoms belongs"),
    "nan.xyz": ("1\n\nH nan 0 0\n", "the molecule at line 1: the position of atom 1 is not finite"),
    "odd.xyz": ("1\n\nQq 0 0 0\n", "line 3: 'Qq' is no element"),
    "word.xyz": ("1\n\nH 0 zero 0\n", "line 3: 'zero' is no number"),
    "two.xyz": ("1\n\nH 0 0\n", "line 3: 'H 0 0' is no element with three numbers"),
    "short.xyz": ("3\n\nH 0 0 0\n", "line 1 says 3 atoms and 1 lines follow; the file is cut off"),
    "none.xyz": ("", "there are no molecules"),
    "xyz.sdf": ("1\n\nH 0 0 0\n", "molecule 1: its fourth line is '' where the counts of V2000 belong"),
    "new.sdf": ("\n\n\n  0  0  0     0  0            999 V3000\n", "molecule 1: it is of V3000"),
    "bytes.xyz": (b"\xff\xfe\x00\x81", "is no text"),
    "bytes.npz": (b"PK\x03\x04 damaged", "it is no .npz file of arrays, or is damaged"),
    "text.npz": ("1\n\nH 0 0 0\n", "it is no .npz file of arrays"),
    "a.mol2": ("", "does not end like a file of molecules"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_none_is_refused_in_a_sentence(tmp_path, name, capsys):
    """From Python, and by the commands that read such files."""
    content, said = REFUSED[name]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError) as error:
        molecules.read(tmp_path / name)
    assert said in str(error.value) and name in str(error.value) and "\n" not in str(error.value)
    assert main(["evaluate", "molecules", str(tmp_path / name)]) == 2
    told = capsys.readouterr()
    assert told.err.strip().endswith(str(error.value)) and not told.out
    if name.endswith(("xyz", "sdf")):
        assert main(["train", "molecules", "--data", str(tmp_path / name), "--output", str(tmp_path / "out")]) == 2
        assert str(error.value) in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_arrays_that_are_no_molecules_are_refused(tmp_path):
    file = tmp_path / "a.npz"
    good = {"positions": np.zeros((1, 2, 3)), "atomic_numbers": np.array([[6, 0]])}
    for changed, said in (
        ({"positions": np.full((1, 2, 3), np.nan)}, "molecule number 1 has a position that is not finite"),
        ({"positions": np.zeros((1, 3, 3))}, "must be (b, n, 3) and (b, n)"),
        ({"atomic_numbers": np.array([[0, 0]])}, "each molecule needs an atom"),
        ({"atomic_numbers": np.array([[200, 0]])}, "must be whole numbers from 1 to 118"),
    ):
        np.savez(file, **{**good, **changed})
        with pytest.raises(ValueError) as error:
            molecules.read(file)
        assert said in str(error.value)
    with pytest.raises(ValueError, match="not finite, so they are not written"):
        molecules.write(tmp_path / "b.xyz", WATER._replace(positions=WATER.positions * np.nan))
    assert not (tmp_path / "b.xyz").exists()


def test_pictures_show_each_atom():
    """A white corner, the red of oxygen and a stick; turned over, the picture of a planar molecule is as large."""
    picture, *others = molecules.draw(SOME, 64)
    assert picture.size == (64, 64) and picture.getpixel((0, 0)) == (255, 255, 255)
    red = np.asarray(picture).astype(int)
    assert (red[..., 0] > red[..., 2] + 80).sum() > 30
    assert images.grid([picture, *others]).size == (129, 129)
