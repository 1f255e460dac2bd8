"""Networks over more than they were made for: window by window, all at each step, fading into one another.

    network = windowed(Partial(unet.apply, {"params": params}), size=65536, overlap=16384)
    sound = fdiff.sample(network, plan, noise, key)          # noise (b, n, c) of any n
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff.sampling import Network, as_partial


class Windows(NamedTuple):
    """Where windows begin, (k,), how long they are, and which share (k, size) each has in what is said of its places.

    At each place the shares of all windows add up to 1.
    """

    starts: np.ndarray
    size: int
    shares: np.ndarray


def lay_windows(length: int, size: int, overlap: int) -> Windows:
    """As few windows as cover the length, evenly apart, neighbours overlapping by `overlap` places or more.

    A share rises over the overlap from the ends of a window, as a line. Raises ValueError unless 0 <= overlap < size.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"windows of {size} cannot overlap by {overlap}; it must be from 0 to below {size}")
    size = min(size, length)
    count = 1 if length == size else -(-(length - overlap) // (size - overlap))
    starts = np.round(np.linspace(0, length - size, count)).astype(int)
    place = np.arange(size)
    heights = np.minimum(1, np.minimum(place + 1, size - place) / (overlap + 1))
    total = np.zeros(length)
    for start in starts:
        total[start : start + size] += heights
    shares = np.stack([heights / total[start : start + size] for start in starts])
    return Windows(starts, size, shares.astype(np.float32))


def windowed(
    network: Callable[..., jax.Array], size: int, overlap: int, axis: int = 1, *, alike: bool = False
) -> Network:
    """The network over any length of an axis, of windows of `size` (MultiDiffusion, Bar-Tal et al. 2023, eq. 5).

        out[place] = sum_k share_k[place] network(window k of x, t)[place],  sum_k share_k[place] = 1

    As a step is linear in what the network says, that is the mean of the steps of all windows. Windows are computed one
    after the other, in the memory of one. What is no longer than a window is told to the network as it is.

    network: (x, t) -> out, or (x, t, condition) -> out, where leaves (b, k, ...) of the condition are of the k windows;
        with `alike`, leaves (b, ...) are of all of them.
    """
    return Partial(Windowed(size, overlap, axis, alike), as_partial(network))


@dataclasses.dataclass(frozen=True)
class Windowed:
    """What `windowed` makes, a frozen dataclass, so that two of the same sizes are one function to the compiler."""

    size: int
    overlap: int
    axis: int
    alike: bool = False

    def __call__(self, network: Any, x: jax.Array, t: jax.Array, *told: Any) -> jax.Array:
        """What the network says of x, window by window."""
        windows = lay_windows(x.shape[self.axis], self.size, self.overlap)
        starts = jnp.asarray(windows.starts)

        def one(k: jax.Array) -> jax.Array:
            part = jax.lax.dynamic_slice_in_dim(x, starts[k], windows.size, self.axis)
            of_window = told if self.alike else jax.tree.map(lambda leaf: leaf[:, k], told)
            said: jax.Array = network(part, t, *of_window)
            return said.astype(jnp.float32)

        if len(windows.starts) == 1:
            return one(jnp.int32(0))
        parts = jax.lax.map(one, jnp.arange(len(starts)))

        def add(total: jax.Array, window: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
            part, start, share = window
            before = jax.lax.dynamic_slice_in_dim(total, start, windows.size, self.axis)
            more = part * share.reshape(-1, *[1] * (x.ndim - self.axis - 1))
            return jax.lax.dynamic_update_slice_in_dim(total, before + more, start, self.axis), None

        # a loop, as a program that spells out each window takes minutes to compile where they are hundreds
        total = jnp.zeros((*parts.shape[1 : self.axis + 1], x.shape[self.axis], *parts.shape[self.axis + 2 :]))
        return jax.lax.scan(add, total, (parts, starts, jnp.asarray(windows.shares)))[0]
