"""Molecules as .xyz: a number of atoms, a line of comment, and a line for each atom."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from fdiff.molecules.graphs import Molecule, atomic_number, checked

# What the comment line of QM9's own files says, in units of that data set (Ramakrishnan et al. 2014, table 3).
QM9 = ("A", "B", "C", "mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv")
BEHIND = 3  # lines that those files have behind their atoms: frequencies, SMILES and InChI

Found = tuple[Molecule, dict[str, float]]


def parse(text: str) -> Iterator[Found]:
    """Each molecule of the text, one after the other as trajectories are, and the properties that QM9's own files say.

    Extended columns are told from the comment's Properties=species:S:1:pos:R:3..., and passed over. Numbers may have
    exponents: 1e-4, Fortran's 1D-4 and 6.9*^-4, as QM9 has them. Raises ValueError, the end of a sentence that names
    the file, for what is no such text.
    """
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        head = lines[at].strip()
        if not (head.isascii() and head.isdigit()):
            raise ValueError(f"line {at + 1} is {head!r:.60} where the number of atoms belongs; correct it, or name "
                             "the file by what it is")
        count = int(head)
        comment, rows = lines[at + 1] if at + 1 < len(lines) else "", lines[at + 2 : at + 2 + count]
        if len(rows) < count:
            raise ValueError(f"line {at + 1} says {count} atoms and {len(rows)} lines follow; the file is cut off")
        yield _molecule(rows, _columns(comment), at), _properties(comment)
        at += 2 + count + (BEHIND if comment.startswith("gdb ") else 0)


def _molecule(rows: Sequence[str], columns: tuple[int, int], at: int) -> Molecule:
    numbers, positions = [], []
    kind, where = columns
    for i, row in enumerate(rows, at + 3):
        words = row.split()
        try:
            numbers.append(atomic_number(words[kind]))
            positions.append([number(word) for word in words[where : where + 3]])
            if len(positions[-1]) < 3:
                raise ValueError(f"{row.strip()!r:.60} is no element with three numbers")
        except IndexError:
            raise ValueError(f"line {i} is {row.strip()!r:.60} where an atom belongs; correct it") from None
        except ValueError as error:
            raise ValueError(f"line {i}: {error}") from None
    try:
        return checked(positions, numbers, [0] * len(numbers))
    except ValueError as error:
        raise ValueError(f"the molecule at line {at + 1}: {error}") from None


def _columns(comment: str) -> tuple[int, int]:
    """Where the element and the position of an atom stand in its line."""
    found = re.search(r'(?:^|\s)Properties="?([^\s"]+)', comment, re.IGNORECASE)
    if not found:
        return 0, 1
    words, at, places = found[1].split(":"), 0, {}
    for name, width in zip(words[::3], words[2::3], strict=False):
        places[name.lower()] = at
        at += int(width) if width.isdigit() else 1
    return places.get("species", places.get("z", 0)), places.get("pos", 1)


def _properties(comment: str) -> dict[str, float]:
    words = comment.split()
    if not comment.startswith("gdb ") or len(words) < 2 + len(QM9):
        return {}
    return {name: number(word) for name, word in zip(QM9, words[2:], strict=False)}


def number(word: str) -> float:
    """A number in any of the ways of writing an exponent. Raises ValueError for what is none."""
    try:
        return float(re.sub(r"\*\^|[dD](?=[-+]?\d)", "e", word)) if "_" not in word else float("_")
    except ValueError:
        raise ValueError(f"{word!r:.60} is no number; correct it") from None


def text(molecules: Sequence[Molecule]) -> str:
    """The molecules one after the other, without exponents and with four columns alone: what every reader knows.

    Formal charges have no place in it.
    """
    lines = []
    for one in molecules:
        lines += [str(len(one.numbers)), ""]
        lines += [f"{symbol:<2} {x:14.8f} {y:14.8f} {z:14.8f}"
                  for symbol, (x, y, z) in zip(one.symbols, one.positions, strict=True)]  # fmt: skip
    return "\n".join([*lines, ""])
