"""Bonds by the distances of atoms, as EDM looks them up (Hoogeboom et al. 2022, appendix C), and stability."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fdiff.molecules.graphs import NUMBER_OF, SYMBOLS, Molecule, Molecules

# Lengths of bonds between two elements in picometres, and how much longer than that a bond may be.
SINGLE = """
H-H 74  H-B 119  H-C 109  H-N 101  H-O 96  H-F 92  H-Si 148  H-P 144  H-S 134  H-Cl 127  H-As 152  H-Br 141  H-I 161
C-C 154  C-N 147  C-O 143  C-F 135  C-Si 185  C-P 184  C-S 182  C-Cl 177  C-Br 194  C-I 214
N-N 145  N-O 140  N-F 136  N-P 177  N-S 168  N-Cl 175  N-Br 214  N-I 222
O-O 148  O-F 142  O-Si 163  O-P 163  O-S 151  O-Cl 164  O-Br 172  O-I 194
F-F 142  F-Si 160  F-P 156  F-S 158  F-Cl 166  F-Br 178  F-I 187
Si-Si 233  Si-S 200  Si-Cl 202  Si-Br 215  Si-I 243  P-P 221  P-S 210  P-Cl 203  P-Br 222
S-S 204  S-Cl 207  S-Br 225  S-I 234  B-Cl 175  Cl-Cl 199  Cl-Br 214  Br-Br 228  I-I 266
"""
DOUBLE = "C-C 134  C-N 129  C-O 120  C-S 160  N-N 125  N-O 121  O-O 121  O-P 150  P-S 186"
TRIPLE = "C-C 120  C-N 116  C-O 113  N-N 110"
MARGINS = (10.0, 5.0, 3.0)

# How many bonds a stable atom has, each counted by its order.
VALENCES: Mapping[str, tuple[int, ...]] = {
    "H": (1,), "B": (3,), "C": (4,), "N": (3,), "O": (2,), "F": (1,), "Al": (3,), "Si": (4,), "P": (3, 5), "S": (4,),
    "Cl": (1,), "As": (3,), "Br": (1,), "I": (1,), "Hg": (1, 2), "Bi": (3, 5),
}  # fmt: skip


class Stability(NamedTuple):
    """Which atoms (b, n) have as many bonds as they should, and which molecules (b,) consist of such alone."""

    atoms: np.ndarray
    molecules: np.ndarray


@functools.cache
def _limits() -> np.ndarray:
    """(3, 119, 119) distances in angstrom below which atoms are bound once, twice and three times; 0: never."""
    table = np.zeros((3, len(SYMBOLS), len(SYMBOLS)))
    for order, (text, margin) in enumerate(zip((SINGLE, DOUBLE, TRIPLE), MARGINS, strict=True)):
        words = text.split()
        for pair, length in zip(words[::2], words[1::2], strict=True):
            a, b = (NUMBER_OF[symbol] for symbol in pair.split("-"))
            table[order, a, b] = table[order, b, a] = (int(length) + margin) / 100
    return table


def bond_orders(positions: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The order of the bond between any two atoms, 0 for none: (..., n, n) whole numbers.

        order k where the distance is below length_k(a, b) + margin_k, k = 1, 2, 3, and below those of lower orders

    Args:
        positions: (..., n, 3) in angstrom.
        numbers: (..., n) atomic numbers; 0 has no bonds, as have elements whose lengths are not known.
    """
    difference = positions[..., :, None, :] - positions[..., None, :, :]
    distance = np.sqrt((difference.astype(np.float64) ** 2).sum(-1))
    first, second = numbers[..., :, None], numbers[..., None, :]
    once, twice, thrice = (np.asarray(distance < limit[first, second], np.int64) for limit in _limits())
    orders = once * (1 + twice * (1 + thrice))
    return np.where(np.eye(numbers.shape[-1], dtype=bool), 0, orders)


def orders_of(one: Molecule) -> np.ndarray:
    """The orders of the bonds (n, n) that the molecule says, or `bond_orders` where it says none."""
    return bond_orders(one.positions, one.numbers) if one.bonds is None else one.bonds


def stability(molecules: Molecules) -> Stability:
    """Which atoms and molecules are stable: each atom's orders add up to one of its valences.

    Raises ValueError for an element whose valence is not known.
    """
    positions, numbers = np.asarray(molecules.positions), np.asarray(molecules.numbers)
    allowed = np.zeros((len(SYMBOLS), 8), bool)
    for symbol, valences in VALENCES.items():
        allowed[NUMBER_OF[symbol], list(valences)] = True
    known = np.asarray(allowed.any(1))
    unknown = np.argwhere((numbers > 0) & ~known[numbers])
    if len(unknown):
        i, atom = unknown[0]
        raise ValueError(f"molecule number {i + 1} has an atom of {SYMBOLS[numbers[i, atom]]}, whose stability is not "
                         f"known; leave such molecules out, what is known are {', '.join(VALENCES)}")
    chunks = range(0, len(numbers), 1000)  # so that (b, n, n, 3) stays small
    counts = np.concatenate([
        bond_orders(positions[i : i + 1000], numbers[i : i + 1000]).sum(-1) for i in chunks
    ])  # fmt: skip
    there = numbers > 0
    stable = there & allowed[numbers, np.minimum(counts, 7)]
    return Stability(stable, (stable | ~there).all(1))
