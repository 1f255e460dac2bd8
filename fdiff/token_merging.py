"""Token merging: where a U-Net attends to itself at its largest level, tokens that are alike are computed as one.

    network = merged(network, ratio=0.5)

A transform of networks (x, t, ...) -> out, which sees their layers by what checkpoints call them; pipelines of U-Nets
take its ratio as an option, `pipe(params, prompt, token_merging=0.5)`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

BLOCK = re.compile(r".*\battentions\.\d+\.transformer_blocks\.\d+")
MOST = 0.75  # of the tokens, as one in four is merged into
SIDE = 2


class Merging(NamedTuple):
    """Which tokens are merged into which: of (b, n, c), `alone` (b, m) are left, and `merged` (b, r) go into the tokens
    `into` (b, r) of the corners (k,) of squares, by their place among those."""

    alone: jax.Array
    merged: jax.Array
    into: jax.Array
    corners: np.ndarray


def merged(network: Callable[..., Any], ratio: float) -> Any:
    """The network that merges this share of the tokens before its U-Net attends to itself at its largest level, and
    gives each what became of them (ToMe for SD, Bolya and Hoffman 2023, section 3).

    The r tokens most like one of the corners of 2 x 2 squares, by the cosine of what enters the block, are merged into
    it, as their mean; corners are always those at the top left, so that nothing is drawn.

    network: (x, t, ...) -> out, x (b, h, w, c). ratio: above 0, to 0.75, which three of four tokens are. Raises
    ValueError for another.
    """
    if not 0 < ratio <= MOST:
        raise ValueError(f"token_merging is {ratio!r}; it must be above 0 and no more than {MOST}, such as 0.5")
    return Partial(Merged(float(ratio)), network)


@dataclasses.dataclass(frozen=True)
class Merged:
    """What `merged` makes, a frozen dataclass, so that two of the same ratio are one function to the compiler.

    Raises ValueError for a network without such layers.
    """

    ratio: float

    def __call__(self, network: Any, x: jax.Array, *told: Any) -> Any:
        """What the network says of x."""
        height, width = x.shape[1:3]
        seen, found = dict[str, jax.Array](), list[str]()

        def intercept(method: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any], context: Any) -> Any:
            path = ".".join(context.module.path) if context.method_name == "__call__" else ""
            block = path.removesuffix(".attn1")
            if BLOCK.fullmatch(path) and args[0].shape[1] == height * width:
                seen[path] = args[0]
            if block == path or block not in seen or any(one is not None for one in args[1:]):
                return method(*args, **named)
            found.append(path)
            merging = alike(seen[block], height, width, self.ratio)
            return unmerge(merging, method(merge(merging, args[0]), **named))

        with nn.intercept_methods(intercept):
            out = network(x, *told)
        if not found:
            raise ValueError("token_merging merges tokens of transformers in a U-Net that attend to themselves at its "
                             "largest level, and this network has none; leave it out")
        return out


def alike(x: jax.Array, height: int, width: int, ratio: float) -> Merging:
    """Which of the tokens x (b, height * width, c) are merged into which."""
    places = np.arange(height * width).reshape(height, width)
    corner = np.zeros((height, width), bool)
    corner[: height // SIDE * SIDE : SIDE, : width // SIDE * SIDE : SIDE] = True
    corners, others = places[corner], places[~corner]
    x = x.astype(jnp.float32)
    x /= jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    likeness = jnp.einsum("bnc,bmc->bnm", x[:, others], x[:, corners])
    order = jnp.argsort(-likeness.max(-1), axis=1, stable=True)
    count = min(len(others), int(ratio * height * width))
    into = jnp.take_along_axis(likeness.argmax(-1), order[:, :count], axis=1)
    ordered = jnp.asarray(others)[order]
    return Merging(ordered[:, count:], ordered[:, :count], into, corners)


def merge(merging: Merging, x: jax.Array) -> jax.Array:
    """(b, n, c) -> (b, n - r, c): those that are left alone, then the means at the corners."""
    def one(alone: jax.Array, gone: jax.Array, into: jax.Array, x: jax.Array) -> jax.Array:
        total = x[merging.corners].astype(jnp.float32).at[into].add(x[gone].astype(jnp.float32))
        count = jnp.ones(len(merging.corners)).at[into].add(1.0)
        return jnp.concatenate([x[alone], (total / count[:, None]).astype(x.dtype)])

    return jax.vmap(one)(merging.alone, merging.merged, merging.into, x)


def unmerge(merging: Merging, x: jax.Array) -> jax.Array:
    """(b, n - r, c) -> (b, n, c), what is at a corner for each token that went into it."""
    def one(alone: jax.Array, gone: jax.Array, into: jax.Array, x: jax.Array) -> jax.Array:
        left, corners = x[: len(alone)], x[len(alone) :]
        whole = jnp.zeros((len(left) + len(corners) + len(gone), x.shape[-1]), x.dtype)
        return whole.at[merging.corners].set(corners).at[alone].set(left).at[gone].set(corners[into])

    return jax.vmap(one)(merging.alone, merging.merged, merging.into, x)
