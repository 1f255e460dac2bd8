"""What changes from row to row of a plan: arguments of a network that whoever runs the plan sets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import numpy as np

from fdiff.plan import Plan

Tree = TypeVar("Tree")


@partial(jax.tree_util.register_dataclass, data_fields=["values", "which"], meta_fields=[])
@dataclasses.dataclass(frozen=True, eq=False)
class ByRow:
    """What is another array at each row of a plan: `values[which[i]]` at row i, or `values[i]` without `which`.

        early = ByRow(np.arange(len(plan)) < len(plan) // 2)
        sample(Partial(network, params, early), plan, x)       # network(params, True, x, t) in the first half

    It stands among the arguments of a network's Partial, at any depth, in the place of an array; whoever runs a plan
    puts what holds at a row there (see `at_row`), so that the network sees an array and knows nothing of rows. Rows
    are what a part of a run is counted in, since several of them may share one t.

    Attributes:
        values: (m, ...).
        which: (n,) integers below m.
    """

    values: Any
    which: Any = None

    def __len__(self) -> int:
        return len(self.values if self.which is None else self.which)

    def __getitem__(self, row: Any) -> Any:
        return self.values[row if self.which is None else self.which[row]]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array at a row."""
        return tuple(self.values.shape[1:])

    @property
    def dtype(self) -> Any:
        """Of the array at a row."""
        return self.values.dtype


def at_row(tree: Tree, row: jax.Array | int) -> Tree:
    """The tree, such as a network or a condition, with what holds at that row in the place of each `ByRow`."""
    return _replaced(tree, lambda rows: rows[row])


def each_row(value: Any, function: Callable[[jax.Array], jax.Array]) -> Any:
    """The function of an array, or the `ByRow` of what it makes of each array of one."""
    return ByRow(jax.vmap(function)(value.values), value.which) if isinstance(value, ByRow) else function(value)


def _replaced(tree: Tree, function: Callable[[ByRow], Any]) -> Tree:
    """The tree with the function of each `ByRow` in its place."""
    def one(leaf: Any) -> Any:
        return function(leaf) if isinstance(leaf, ByRow) else leaf

    found: Tree = jax.tree.map(one, tree, is_leaf=lambda leaf: isinstance(leaf, ByRow))
    return found


def fitted(network: Tree, plan: Plan) -> Tree:
    """The network with as many rows in each `ByRow` as the plan has, the last one going on through what padding adds.

    Raises ValueError where the plan has fewer.
    """
    def fit(rows: ByRow) -> ByRow:
        if len(rows) > len(plan):
            raise ValueError(f"the network is made for a plan of {len(rows)} rows and this one has {len(plan)}; make "
                             "its ByRow anew, of as many rows")
        kept = np.minimum(np.arange(len(plan)), len(rows) - 1)
        return ByRow(rows.values[kept]) if rows.which is None else ByRow(rows.values, rows.which[kept])

    return _replaced(network, lambda rows: rows if len(rows) == len(plan) else fit(rows))
