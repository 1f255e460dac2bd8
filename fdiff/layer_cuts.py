"""Where a network is cut: layers that are computed at each step, and those between them that may be left out.

Layers are known by what checkpoints call them, so that models know nothing of it. A cut says which are left out, and
what the others see of them; `begin`, `whole` and `over` then run the network.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core.tracers import current_trace
from jax.interpreters.partial_eval import dce_jaxpr

# The layers of a U-Net; those of them whose results the way up sees; and those that see them.
OF_UNET = re.compile(r"((down|up)_blocks\.\d+|mid_block)\.[a-z_]+(\.\d+)?")
DOWN = re.compile(r"down_blocks\.\d+\.(resnets\.\d+|downsamplers\.\d+|resnet_down)")
UP = re.compile(r"up_blocks\.\d+\.resnets\.\d+")
# The blocks of a transformer through which its tokens go, one after the other.
OF_TRANSFORMER = re.compile(r"(transformer_blocks|single_transformer_blocks|layers|blocks)\.\d+")

Place = tuple[int, int]  # a layer, by the number of its call, and a leaf of what it gives
Act = Callable[[int, str, tuple[Any, ...], Callable[[], Any]], Any]  # (number, path, arguments, call) -> result


class Given(NamedTuple):
    """What a layer gives: the structure of a tree, and the shapes of its leaves."""

    structure: Any
    shapes: tuple[jax.ShapeDtypeStruct, ...]


@dataclasses.dataclass(frozen=True)
class Cut:
    """head: the layers before those that are left out. body: those, with what each gives. kept: what of that the rest
    of the network sees."""

    head: tuple[int, ...]
    body: tuple[tuple[int, Given], ...]
    kept: tuple[Place, ...]


class Begun(NamedTuple):
    """What the layers of the head gave; what the first of them added; and what of it goes through to kept places."""

    heads: dict[int, Any]
    added: Any  # an array, or None without a head
    through: dict[Place, jax.Array]


@functools.lru_cache(maxsize=64)
def cut(structure: Any, shapes: tuple[jax.ShapeDtypeStruct, ...], depth: int) -> Cut:
    """The cut behind the first `depth` layers and, in a U-Net, before the last `depth` + 1 on its way up.

    structure, shapes: of (network, inputs). Raises ValueError for a network that has no such layers, or in a loop.
    """
    network, inputs = jax.tree.unflatten(structure, shapes)
    models, outs = _layers(network, inputs)
    parts = [_split(layers, depth) for layers in models]
    head, body = (tuple(itertools.chain(*some)) for some in zip(*parts, strict=True)) if parts else ((), ())
    if not body:
        raise ValueError("DeepCache and FirstBlockCache leave out layers of a U-Net, or blocks of a transformer, and "
                         "this network has none; use TaylorSeer, which forecasts what any network says")
    given = tuple((i, Given(outs[i][1], tuple(outs[i][0]))) for i in body)

    def seeing(leaves: Sequence[Any], network: Any, inputs: Any) -> Any:
        trees = {i: jax.tree.unflatten(one.structure, own) for (i, one), own in zip(given, leaves, strict=True)}
        return _visit(network, inputs, lambda i, path, args, call: trees[i] if i in trees else call())

    jaxpr = jax.make_jaxpr(seeing)([one.shapes for _, one in given], network, inputs).jaxpr
    seen = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[1]
    places = ((i, j) for i, one in given for j in range(len(one.shapes)))
    return Cut(head, given, tuple(itertools.compress(places, seen)))


def begin(cut: Cut, network: Any, inputs: Any) -> Begun:
    """Compute the head."""
    begun, added = Begun({}, None, {}), list[jax.Array]()

    def act(i: int, path: str, args: tuple[Any, ...], call: Callable[[], Any]) -> Any:
        if i in cut.head:
            begun.heads[i] = call()
            first = jax.tree.leaves(begun.heads[i])[0]
            added.append(first - args[0] if first.shape == args[0].shape else first)
            return begun.heads[i]
        if i not in dict(cut.body):
            return call()
        through, tree = _through(cut, i, path, args)
        begun.through.update({place: one for place, one in through.items() if place in cut.kept})
        return tree(through)

    _visit(network, inputs, act)
    return begun._replace(added=added[0] if added else None)


def whole(
    cut: Cut, begun: Begun, network: Any, inputs: Any, keep: tuple[jax.Array, Sequence[jax.Array]] | None = None
) -> tuple[Any, list[jax.Array]]:
    """What the network gives, and what its body adds at the kept places.

    keep: which samples (b,) keep what they had at these places, and that.
    """
    found: dict[Place, jax.Array] = {}

    def act(i: int, path: str, args: tuple[Any, ...], call: Callable[[], Any]) -> Any:
        out = begun.heads[i] if i in begun.heads else call()
        if i not in dict(cut.body):
            return out
        leaves, structure = jax.tree.flatten(out)
        for place in cut.kept:
            if place[0] == i:
                new, base = leaves[place[1]], begun.through.get(place)
                found[place] = new if base is None else new - base
                if keep is not None:
                    kept, old = column(keep[0], new), keep[1][cut.kept.index(place)]
                    found[place] = jnp.where(kept, old, found[place])
                    leaves[place[1]] = jnp.where(kept, old if base is None else base + old, new)
        return jax.tree.unflatten(structure, leaves)

    said = _visit(network, inputs, act)
    return said, [found[place] for place in cut.kept]


def over(cut: Cut, begun: Begun, network: Any, inputs: Any, features: Sequence[jax.Array]) -> Any:
    """What the network gives without its body, which adds these features at the kept places."""
    def act(i: int, path: str, args: tuple[Any, ...], call: Callable[[], Any]) -> Any:
        if i not in dict(cut.body):
            return begun.heads[i] if i in begun.heads else call()
        through, tree = _through(cut, i, path, args)
        mine = {place: one for place, one in zip(cut.kept, features, strict=True) if place[0] == i}
        return tree(through | {place: one + through[place] if place in through else one for place, one in mine.items()})

    return _visit(network, inputs, act)


def column(value: jax.Array, like: jax.Array) -> jax.Array:
    """(b,) shaped to choose among samples of an array (b, ...)."""
    return value.reshape(value.shape + (1,) * (like.ndim - 1))


def _through(
    cut: Cut, i: int, path: str, args: tuple[Any, ...]
) -> tuple[dict[Place, jax.Array], Callable[[dict[Place, jax.Array]], Any]]:
    """What goes through a block of a transformer that is left out, which adds to its first arguments; and the tree that
    it gives of some leaves, the others being zeros."""
    structure, shapes = dict(cut.body)[i]
    pairs = zip(shapes, args, strict=False)
    same = [isinstance(arg, jax.Array) and (arg.shape, arg.dtype) == (one.shape, one.dtype) for one, arg in pairs]
    through = {(i, j): args[j] for j, yes in enumerate(same) if yes and not OF_UNET.fullmatch(path)}

    def tree(leaves: dict[Place, jax.Array]) -> Any:
        filled = [leaves.get((i, j), jnp.zeros(one.shape, one.dtype)) for j, one in enumerate(shapes)]
        return jax.tree.unflatten(structure, filled)

    return through, tree


def _visit(network: Any, inputs: Any, act: Act) -> Any:
    """What the network gives where `act` gives what each of its layers does."""
    numbers = itertools.count()

    def intercept(method: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any], context: Any) -> Any:
        path = ".".join(context.module.path) if context.method_name == "__call__" else ""
        if not (OF_UNET.fullmatch(path) or OF_TRANSFORMER.fullmatch(path)):
            return method(*args, **named)
        return act(next(numbers), path, args, lambda: method(*args, **named))

    with nn.intercept_methods(intercept):
        return network(*inputs)


def _layers(network: Any, inputs: Any) -> tuple[list[dict[int, str]], list[Any]]:
    """The layers of each model that gives one array, unlike ControlNets, with their paths; and what all layers give,
    as leaves and structure. Raises ValueError for layers in a loop."""
    models, paths, structures = list[dict[int, str]](), list[str](), dict[int, Any]()

    def note(network: Any, inputs: Any) -> Any:
        outs, trace = dict[int, Any](), current_trace()

        def intercept(method: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any], context: Any) -> Any:
            first, out = len(paths), method(*args, **named)
            if context.method_name == "__call__" and not context.module.path and isinstance(out, jax.Array):
                models.append(dict(enumerate(paths[first:], first)))
            return out

        def act(i: int, path: str, args: tuple[Any, ...], call: Callable[[], Any]) -> Any:
            if current_trace() != trace:
                raise ValueError("the layers of this network are called in a loop, such as that over stacked blocks or "
                                 "the windows of a long sound; use TaylorSeer, which forecasts what any network says")
            paths.append(path)
            outs[i], structures[i] = jax.tree.flatten(out := call())
            return out

        with nn.intercept_methods(intercept):
            _visit(network, inputs, act)
        return outs

    outs = jax.eval_shape(note, network, inputs)
    return models, [(outs[i], structures[i]) for i in range(len(paths))]


def _split(layers: dict[int, str], depth: int) -> tuple[Sequence[int], Sequence[int]]:
    """The head and the body of a model. Raises ValueError where it has fewer layers."""
    numbers = list(layers)
    of_unet = [i for i in numbers if OF_UNET.fullmatch(layers[i])]
    if not of_unet:
        start, end, most = depth, len(numbers), len(numbers) - 1
    else:
        downs = [numbers.index(i) for i in of_unet if DOWN.fullmatch(layers[i])]
        ups = [numbers.index(i) for i in of_unet if UP.fullmatch(layers[i])]
        most = min(len(downs), len(ups)) - 1
        start, end = (downs[depth], ups[-1 - depth]) if depth <= most else (0, 0)
    if numbers and depth > most:
        raise ValueError(f"depth is {depth}; this network has layers for one of 0 to {most}")
    return numbers[:start], numbers[start:end]
