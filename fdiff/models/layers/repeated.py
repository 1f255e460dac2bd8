"""Blocks that a network has many of, one after the other: each called by itself or, stacked, all in a loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core.scope import Scope

from fdiff.stacked import RUN, block_of

Carry = TypeVar("Carry")


def repeated(
    module: nn.Module, count: int, make: Callable[[int], Any], step: Callable[..., Carry], carry: Carry
) -> Carry:
    """carry = step(make(i), carry, i) for i from 0 to count - 1.

    Blocks whose parameters the module has as one (`fdiff.stack_blocks`) are run by a loop, in which i is an array: then
    `step` is traced once for all of them. Where what it gives has other dtypes than what it is given, the first of them
    is run before. Other collections than "params" may have blocks one by one. Dropout draws other numbers in a loop.

    make: gives a block of the module, the end of whose name is i.
    """
    behind = [one for one, _ in _run(module, count, make, step, carry, False)]
    return behind[-1] if behind else carry


def all_repeated(
    module: nn.Module, count: int, make: Callable[[int], Any], step: Callable[..., Carry], carry: Carry
) -> list[Carry]:
    """`repeated`, and what leaves each of the blocks."""
    return [one for _, said in _run(module, count, make, step, carry, True) for one in said]


def at(options: Sequence[jax.Array], i: Any) -> jax.Array:
    """options[i], where i may be an array."""
    return options[i] if isinstance(i, int) else jnp.stack(options)[i]


def _run(
    module: nn.Module, count: int, make: Callable[[int], Any], step: Callable[..., Any], carry: Any, keep: bool
) -> Iterator[tuple[Any, list[Any]]]:
    """The carry behind a block, or those of a loop, and what left each of them, where asked."""
    sizes, i = _sizes(module), 0
    while i < count:
        block = make(i)
        if block.name not in sizes:
            carry, i = step(block, carry, i), i + 1
            yield carry, [carry]
            continue
        stop = min(count, i + sizes[block.name])
        inside = _inside(module, block, i, sizes[block.name], step)
        while i < stop and _form(jax.eval_shape(inside, carry, jnp.int32(i))) != _form(carry):
            carry, i = inside(carry, i), i + 1
            yield carry, [carry]
        carry, states = jax.lax.scan(_kept(inside, keep), carry, jnp.arange(i, stop))
        yield carry, [block_of(states, k) for k in range(stop - i)] if keep else []
        i = stop


def _kept(inside: Callable[[Any, Any], Any], keep: bool) -> Callable[[Any, Any], tuple[Any, Any]]:
    def body(carry: Any, i: Any) -> tuple[Any, Any]:
        carry = inside(carry, i)
        return carry, carry if keep else None

    return body


def _sizes(module: nn.Module) -> dict[str, int]:
    """How many blocks each stack has, by the name of the first."""
    found = [RUN.fullmatch(name) for name in module.variables.get("params", {})]
    return {f"{one['name']}.{one['first']}": int(one["stop"]) - int(one["first"]) for one in found if one}


def _inside(
    module: nn.Module, block: Any, first: int, count: int, step: Callable[..., Any]
) -> Callable[[Any, Any], Any]:
    """(carry, i) -> carry, of a stack."""
    name, path = block.name, block.scope.path
    stacks = {kind: _stack(kind, tree, name, first, count) for kind, tree in module.variables.items()}
    keys = {kind: module.make_rng(kind) for kind in block.scope.rngs}

    def inside(carry: Any, i: Any) -> Any:
        variables = {kind: block_of(stack, i - first) for kind, stack in stacks.items() if stack is not None}
        rngs = {kind: jax.random.fold_in(key, i) for kind, key in keys.items()}
        return step(block.clone(parent=Scope(variables, rngs, path=path), name=name), carry, i)

    return inside


def _stack(kind: str, tree: Mapping[str, Any], name: str, first: int, count: int) -> Any:
    """What a collection has for the blocks, stacked; None where it has nothing."""
    whole = f"{name}:{first + count}"
    if whole in tree:
        return tree[whole]
    stem = name.removesuffix(str(first))
    parts = [tree.get(f"{stem}{i}") for i in range(first, first + count)]
    if all(part is None for part in parts):
        return None
    if len({str(_form(part)) for part in parts}) > 1:
        raise ValueError(f"what is said of some of the blocks {whole} alone, or of each in another form ({kind!r}), "
                         "needs each by itself; pass the parameters that fdiff.unstack_blocks gives")
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)


def _form(tree: Any) -> Any:
    """The structure, shapes and dtypes."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]
