"""Trees of parameters in which the blocks that a network repeats are one: their arrays, along a leading axis.

    params = stack_blocks(params)        {"layers.0": {...}, "layers.1": {...}} -> {"layers.0:2": {...}}

Networks run such blocks in a loop, whose body is traced and compiled once (`fdiff.models.layers.repeated`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

# What checkpoints call the blocks of networks that repeat them (Chroma's small network has layers of two parts).
BLOCK = re.compile(
    r"(?<!distilled_guidance_layer\.)\b(transformer_blocks|single_transformer_blocks|txt_mode_blocks|mode_blocks\.\w+|"
    r"noise_refiner|context_refiner|layerwise_blocks|refiner_blocks|encoder\.block|layers)\.(?P<number>\d+)"
)
RUN = re.compile(r"(?P<name>.+)\.(?P<first>\d+):(?P<stop>\d+)")


def stack_blocks(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with each run of two and more blocks, of the same shapes and dtypes, as one (n, ...).

    params: of a model, or of several by their names, such as `from_pretrained` gives. Everything else stays as it is;
    `unstack_blocks` is the inverse. Both need the memory of what they change once more: to load a pipeline so, ask
    `from_pretrained` for it. Adapters that change parameters are to be applied before.
    """
    return stacked_in_place(_copied(params))


def unstack_blocks(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with each block by itself, under the name that checkpoints give it."""
    changed = dict[str, Any]()
    for name, tree in params.items():
        found = RUN.fullmatch(name)
        if found:
            first = int(found["first"])
            for i in range(first, int(found["stop"])):
                changed[f"{found['name']}.{i}"] = block_of(tree, i - first)
        else:
            changed[name] = unstack_blocks(tree) if isinstance(tree, Mapping) else tree
    return changed


def holds_stacked(params: Any) -> bool:
    """Whether there are stacked blocks in parameters."""
    return isinstance(params, Mapping) and any(
        RUN.fullmatch(str(name)) or holds_stacked(tree) for name, tree in params.items()
    )


def check_unstacked(params: Any, what: str) -> None:
    """Raise ValueError where there are stacked blocks, of which `what` knows nothing."""
    if holds_stacked(params):
        raise ValueError(f"{what} needs each block by itself and these parameters hold stacked ones; do it before "
                         "fdiff.stack_blocks, or after fdiff.unstack_blocks")


def block_of(tree: Any, i: Any) -> Any:
    """One of stacked blocks."""
    return jax.tree.map(lambda leaf: leaf[i], tree)


def stacked_in_place(params: MutableMapping[str, Any], path: str = "") -> Any:
    """`stack_blocks` of dicts that are taken apart meanwhile, so that no array is there twice for long."""
    runs = [names for names in _runs(params, path) if len(names) > 1]
    for names in runs:
        found = BLOCK.search(_joined(path, names[0]))
        assert found  # since it is in a run
        params[f"{names[0]}:{int(found['number']) + len(names)}"] = _stacked([params.pop(name) for name in names])
    for name, tree in params.items():
        if isinstance(tree, MutableMapping) and not RUN.fullmatch(name):
            stacked_in_place(tree, _joined(path, name))
    return params


def _runs(params: Mapping[str, Any], path: str) -> Iterator[list[str]]:
    """Names of blocks that follow each other and are of one form."""
    blocks = list[tuple[str, int, str]]()
    for name, tree in params.items():
        found = BLOCK.search(_joined(path, name))
        if found and found.end() == len(_joined(path, name)) and _has_layers(tree):
            blocks.append((name[: -len(found["number"])], int(found["number"]), name))
    forms = {name: _form(params[name]) for *_, name in blocks}
    run = list[tuple[str, int, str]]()
    for block in sorted(blocks):
        last = run[-1] if run else None
        if last and (block[0], block[1] - 1, forms[block[2]]) == (last[0], last[1], forms[last[2]]):
            run.append(block)
            continue
        yield [name for *_, name in run]
        run = [block]
    yield [name for *_, name in run]


def _has_layers(tree: Any) -> bool:
    """Whether it is a block of layers, not one layer that happens to have such a name."""
    return isinstance(tree, Mapping) and any(isinstance(part, Mapping) for part in tree.values())


def _form(tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(jnp.shape(leaf), leaf.dtype, getattr(leaf, "sharding", None)) for leaf in leaves]


def _stacked(trees: Sequence[Any]) -> Any:
    """The trees as one, which are emptied."""
    structure = jax.tree.structure(trees[0])
    columns = [jax.tree.leaves(tree) for tree in trees]
    for tree in trees:
        _empty(tree)
    stacks = [_stack([column.pop(0) for column in columns]) for _ in range(len(columns[0]))]
    return jax.tree.unflatten(structure, stacks)


def _stack(leaves: Sequence[Any]) -> jax.Array:
    """(n, ...), laid on devices as each of them is."""
    stack, place = jnp.stack(leaves), getattr(leaves[0], "sharding", None)
    if isinstance(place, NamedSharding) and not isinstance(stack, jax.core.Tracer):
        return jax.device_put(stack, NamedSharding(place.mesh, PartitionSpec(None, *place.spec)))
    return stack


def _empty(tree: Any) -> None:
    for part in tree.values():
        if isinstance(part, MutableMapping):
            _empty(part)
    tree.clear()


def _copied(tree: Any) -> Any:
    """The same arrays in dicts of their own."""
    return {name: _copied(part) for name, part in tree.items()} if isinstance(tree, Mapping) else tree


def _joined(*names: str) -> str:
    return ".".join(name for name in names if name)
