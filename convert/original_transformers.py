"""Diffusion transformers by the names that their authors gave (`convert.original_tables`), in both directions.

A parameter of the original is the rows of one of today's, or of several in a stack, such as "img_attn.qkv".
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from convert import views
from convert.original_tables import FAMILIES, STACKS, SWAPPED, Table

Shapes = Mapping[str, tuple[int, ...]]


class Rows(NamedTuple):
    """Some rows of a parameter of today."""

    name: str
    start: int
    stop: int


def originals(shapes: Shapes) -> dict[str, tuple[Rows, ...]]:
    """Every parameter of the original, and what it is a stack of, of a model with parameters of those shapes.

    Every row of the model is in it once. It is empty for a family without a table, whose names are today's.
    """
    table = next((table for name, table in FAMILIES.items() if name in shapes), None)
    if table is None:
        return {}
    found = _applied(table, shapes)
    named = {rows.name for stack in found.values() for rows in stack}
    return found | {name: (Rows(name, 0, shape[0]),) for name, shape in shapes.items() if name not in named}


def parameters(found: Mapping[str, Any], table: Table) -> dict[str, Any]:
    """The parameters of today that the tensors of an original hold, by their full names.

    A stack is cut into its rows; what the table does not name stays as it is. Raises ValueError, the beginning of a
    sentence, for a tensor that cannot be cut, and for a parameter that is there twice.
    """
    rules = {
        section.original + original: [section.today + name for name in names.split(" ")]
        for section in table for original, names in section.names.items()
    }  # fmt: skip
    made: dict[str, Any] = {}
    for name, tensor in found.items():
        layer, leaf = _leaf(name)
        pattern, block = _pattern(layer)
        stack = next((rules[one] for one in (layer, pattern, f"{pattern}.scale") if one in rules), None)
        if stack == [""]:
            continue
        if stack is None:
            parts: dict[str, Any] | None = {name: tensor}
        else:
            leaf = leaf or (".weight" if name.endswith(".scale") else "")
            wide = found.get(f"{layer}.weight", tensor).shape
            parts = _cut(tensor, [part.replace("*", block) + leaf for part in stack], wide[-1] if wide else 0)
        if parts is not None and name.endswith(".mod.lin") and len(tensor.shape) == 1:  # of Krea 2: six rows in one
            parts = {one: part._replace(shape=(6, part.shape[0] // 6)) for one, part in parts.items()}
        if parts is None:
            raise ValueError(f"{name} has shape {tensor.shape}, which it cannot have")
        if twice := sorted(parts.keys() & made.keys()):
            raise ValueError(f"{twice[0]} stands there twice, also as {name}")
        made |= parts
    return made


def _leaf(name: str) -> tuple[str, str]:
    """A parameter as a layer and its ".weight" or ".bias"; a name without one is the layer's whole."""
    leaf = next((leaf for leaf in (".weight", ".bias") if name.endswith(leaf)), "")
    return name.removesuffix(leaf), leaf


def _cut(tensor: Any, names: list[str], columns: int) -> dict[str, Any] | None:
    """The rows of a stack under the names of its parts.

    Two have equal ones. The first of three has `columns`, as queries have, and the others share what is left; of four,
    three have `columns` each.
    """
    shape = tensor.shape
    if len(names) == 1:
        layer = _leaf(names[0])[0]
        swaps = layer.endswith(SWAPPED) and len(shape) > 0 and shape[0] == 2 * columns
        return {names[0]: views.swapped(tensor) if swaps else tensor}
    rows = shape[0] if shape else 0
    sizes = {
        2: [rows // 2] * 2, 3: [columns, *[(rows - columns) // 2] * 2], 4: [columns] * 3 + [rows - 3 * columns],
    }[len(names)]  # fmt: skip
    if sum(sizes) != rows or min(sizes) < 1:
        return None
    ends = np.cumsum(sizes).tolist()
    return {
        name: views.rows(tensor, end - size, end) for name, size, end in zip(names, sizes, ends, strict=True)
    }


def stacks(shapes: Shapes) -> dict[str, tuple[Rows, ...]]:
    """Every parameter of the original as `originals` has it, and what adapters may change beside these."""
    found = originals(shapes)
    if not found:
        return {}
    beside = {name: stack for section in STACKS for name, stack in _applied((section,), shapes).items()}
    return beside | found


def shape(stack: tuple[Rows, ...], shapes: Shapes) -> tuple[int, ...]:
    """The shape of a parameter of the original."""
    return (sum(rows.stop - rows.start for rows in stack), *shapes[stack[0].name][1:])


def places(stack: tuple[Rows, ...]) -> dict[str, np.ndarray]:
    """Parameter of today -> which rows of the stack it is made of, in order."""
    found: dict[str, list[tuple[int, np.ndarray]]] = {}
    first = 0
    for name, start, stop in stack:
        last = first + stop - start
        found.setdefault(name, []).append((start, np.arange(first, last, dtype=np.int32)))
        first = last
    return {
        name: np.concatenate([rows for _, rows in sorted(parts, key=lambda part: part[0])])
        for name, parts in found.items()
    }


def _applied(table: Table, shapes: Shapes) -> dict[str, tuple[Rows, ...]]:
    """What the table says of the parameters that are there: weights and biases."""
    rules: dict[str, tuple[str, list[str]]] = {}
    for section in table:
        for original, names in section.names.items():
            stack = [section.today + name for name in names.split(" ")]
            rules[stack[0]] = (section.original + original, stack)
    found = {}
    for name in shapes:
        layer = name.removesuffix(".bias")
        leaf = name.removeprefix(layer)
        pattern, block = _pattern(layer)
        original, today = rules.get(layer) or rules.get(pattern) or ("", [])
        parts = [part.replace("*", block) + leaf for part in today]
        if parts and all(part in shapes for part in parts):
            found[original.replace("*", block) + leaf] = _stack(parts, shapes)
    return found


def _pattern(layer: str) -> tuple[str, str]:
    """A name with * in place of its first number, and that number."""
    number = re.search(r"\.(\d+)(?=\.|$)", layer)
    return (f"{layer[: number.start()]}.*{layer[number.end() :]}", number[1]) if number else (layer, "")


def _stack(names: list[str], shapes: Shapes) -> tuple[Rows, ...]:
    layer = names[0].removesuffix(".bias")
    rows = shapes[names[0]][0]
    if layer.endswith(SWAPPED) and rows == 2 * shapes[layer][1]:
        return Rows(names[0], rows // 2, rows), Rows(names[0], 0, rows // 2)
    return tuple(Rows(name, 0, shapes[name][0]) for name in names)
