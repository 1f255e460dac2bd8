"""Running averages of parameters, which samples are drawn from, and any other average made of them afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Decay = Callable[[jax.Array], jax.Array]


def warmed(decay: float = 0.999) -> Decay:
    """The decay min(decay, (1 + i) / (10 + i)) of step i = 0, 1, ..., which soon forgets the first parameters."""
    return lambda i: jnp.minimum(decay, (1 + i) / (10 + i))


def power(width: float) -> Decay:
    """The decay (1 - 1 / (i + 1))^(gamma + 1) of step i = 0, 1, ... (Karras et al. 2024, eq. 127).

    The average then weighs step t by t^gamma, with a deviation of `width` of the steps that are done, such as 0.05 or
    0.10. `post_hoc` makes averages of other widths of two such.
    """
    exponent = _gamma(width) + 1
    return lambda i: (i / (i + 1.0)) ** exponent


class Snapshot(NamedTuple):
    """An average kept by `power`: its width, the steps that were done, and the parameters."""

    width: float
    done: int
    params: Any


def post_hoc(snapshots: Sequence[Snapshot], width: float, done: int | None = None) -> Any:
    """The average of any width at any step, the best that can be mixed of those kept (Karras et al. 2024, alg. 3).

        argmin over w of |sum_j w_j p_j - p|,  p_j(t) and p(t) the weights of step t in the averages

    The w are scaled to a sum of 1.

    Args:
        snapshots: of `power`, of two widths or more, at several steps.
        width: the deviation asked for as a share of `done`, below 0.288.
        done: the step at whose end the average would have been kept; the last snapshot's if not given.

    Raises ValueError for no snapshots, or a width that no power has.
    """
    if not snapshots:
        raise ValueError("no snapshots are given; keep some averages while training")
    done = max(one.done for one in snapshots) if done is None else done
    gammas, ends = [_gamma(one.width) for one in snapshots], [one.done for one in snapshots]
    among = np.array([[_dot(a, s, b, t) for b, t in zip(gammas, ends, strict=True)]
                      for a, s in zip(gammas, ends, strict=True)])
    with_it = np.array([_dot(a, s, _gamma(width), done) for a, s in zip(gammas, ends, strict=True)])
    weights = np.linalg.lstsq(among, with_it, rcond=None)[0]
    weights = weights / weights.sum()

    def mixed(*leaves: Any) -> jax.Array:
        total = sum(weight * np.asarray(leaf, np.float64) for weight, leaf in zip(weights, leaves, strict=True))
        return jnp.asarray(total, leaves[0].dtype)

    return jax.tree.map(mixed, *(one.params for one in snapshots))


def _gamma(width: float) -> float:
    """The power whose weights t^gamma on (0, 1) have that deviation (Karras et al. 2024, alg. 2)."""
    if not 0 < width < 12**-0.5:
        raise ValueError(f"the width of an average is {width}; it must lie above 0 and below 0.288, such as 0.05")
    square = width**-2
    return float(np.roots([1, 7, 16 - square, 12 - square]).real.max())


def _dot(a: float, s: float, b: float, t: float) -> float:
    """The product of the weights of two averages, integrated over the steps (Karras et al. 2024, alg. 3)."""
    (low, short), (high, long) = sorted([(a, s), (b, t)], key=lambda one: one[1])
    return (low + 1) * (high + 1) / (low + high + 1) * (short / long) ** high / long
