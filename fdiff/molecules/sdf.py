"""Molecules as .sdf, blocks of V2000 with $$$$ between (BIOVIA, CTfile formats)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fdiff.molecules.bonds import orders_of
from fdiff.molecules.graphs import Molecule, atomic_number, checked

MOST = 999  # atoms and bonds that the counts line has room for
ROOM = 99_999.0  # angstrom that a position has room for
CODES = {0: 0, 1: 3, 2: 2, 3: 1, 4: 0, 5: -1, 6: -2, 7: -3}  # of the charges in lines of atoms


def parse(text: str) -> Iterator[Molecule]:
    """Each molecule of the text, its hydrogens as they stand there; bonds are looked up anew wherever they are needed.

    Raises ValueError, the end of a sentence that names the file, for what is no such text.
    """
    block: list[str] = []
    count = 0
    for line in [*text.splitlines(), "$$$$"]:
        if line.startswith("$$$$"):
            if any(each.strip() for each in block):
                count += 1
                try:
                    yield _molecule(block)
                except ValueError as error:
                    raise ValueError(f"molecule {count}: {error}") from None
            block = []
        else:
            block.append(line)


def _molecule(block: Sequence[str]) -> Molecule:
    counts = block[3] if len(block) > 3 else ""
    if "V3000" in counts:
        raise ValueError("it is of V3000; write it as V2000")
    if not (counts[:3].strip().isdigit() and counts[3:6].strip().isdigit()):
        raise ValueError(f"its fourth line is {counts.strip()!r:.60} where the counts of V2000 belong; name the file "
                         "by what it is")
    atoms = block[4 : 4 + int(counts[:3])]
    if len(atoms) < int(counts[:3]):
        raise ValueError(f"it says {int(counts[:3])} atoms and {len(atoms)} lines follow; the file is cut off")
    positions, numbers, charges = [], [], []
    for i, line in enumerate(atoms):
        try:
            positions.append([float(line[at : at + 10]) for at in (0, 10, 20)])
        except ValueError:
            raise ValueError(f"atom {i + 1} is {line.strip()!r:.60}, without three numbers; correct it") from None
        numbers.append(atomic_number(line[31:34]))
        code = line[36:39].strip()
        charges.append(CODES.get(int(code), 0) if code.isdigit() else 0)
    found = list(_charges(block))
    if found:  # which go before all those of the atoms
        charges = [0] * len(numbers)
        for atom, charge in found:
            if not 1 <= atom <= len(numbers):
                raise ValueError(f"M  CHG names atom {atom} of {len(numbers)}; correct it")
            charges[atom - 1] = charge
    return checked(positions, numbers, charges)


def _charges(block: Sequence[str]) -> Iterator[tuple[int, int]]:
    """(atom, its charge), atoms counted from 1."""
    for line in block:
        if line.startswith("M  CHG"):
            try:
                words = [int(word) for word in line.split()[3:]]
            except ValueError:
                raise ValueError(f"{line.strip()!r:.60} is no line of charges; correct it") from None
            yield from zip(words[::2], words[1::2], strict=False)


def text(molecules: Sequence[Molecule]) -> str:
    """The molecules with their bonds, as `orders_of`, and each atom's valence, so that no reader adds hydrogens.

    Raises ValueError for a molecule that is too large for the format.
    """
    return "".join(_block(one, i) for i, one in enumerate(molecules, 1))


def _block(one: Molecule, i: int) -> str:
    orders = orders_of(one)
    bonds = np.argwhere(np.triu(orders))
    if max(len(one.numbers), len(bonds)) > MOST or np.abs(one.positions).max() >= ROOM:
        raise ValueError(f"molecule number {i} has {len(one.numbers)} atoms and {len(bonds)} bonds, up to "
                         f"{np.abs(one.positions).max():.0f} angstrom away; .sdf has room for {MOST} of each and "
                         f"{ROOM:.0f} angstrom, write .xyz or .npz")
    lines = [f"molecule {i}", "  fdiff             3D", "", f"{len(one.numbers):3}{len(bonds):3}  0  0  0  0"
             "            999 V2000"]
    for symbol, (x, y, z), valence in zip(one.symbols, one.positions, orders.sum(0), strict=True):
        told = valence if 0 < valence < 15 else 15 if not valence else 0  # 15 says none, and 0 nothing
        lines.append(f"{x:10.4f}{y:10.4f}{z:10.4f} {symbol:<3} 0  0  0  0  0{told:3}  0  0  0  0  0  0")
    lines += [f"{a + 1:3}{b + 1:3}{orders[a, b]:3}  0  0  0  0" for a, b in bonds]
    charged = np.flatnonzero(one.charges)
    for start in range(0, len(charged), 8):  # as many as a line holds
        some = charged[start : start + 8]
        lines.append(f"M  CHG{len(some):3}" + "".join(f"{atom + 1:4}{one.charges[atom]:4}" for atom in some))
    return "\n".join([*lines, "M  END", "$$$$", ""])
