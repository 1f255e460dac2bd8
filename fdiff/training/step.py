"""One step of training with optax, and the running averages of the parameters that sampling uses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import keys
from fdiff.training.averages import Decay, warmed
from fdiff.training.remat import rematerialized

if TYPE_CHECKING:
    import optax

# (params, batch, key) -> number, or (number, numbers by their names); of some also (params, batch, key, average)
Loss = Callable[..., Any]
Metrics = dict[str, jax.Array]


class TrainState(NamedTuple):
    """What training carries: parameters, their running averages, the optimizer's state and the count of steps."""

    params: Any
    averages: tuple[Any, ...]
    optimizer: Any
    done: jax.Array

    @property
    def average(self) -> Any:
        """The first of the averages, or the parameters where none is kept."""
        return self.averages[0] if self.averages else self.params


def init(params: Any, optimizer: optax.GradientTransformation, averages: int = 1) -> TrainState:
    """The state before the first step, in arrays of its own, so that a jitted step may be given them to overwrite:

        step = jax.jit(partial(train_step, loss=loss, optimizer=optimizer), donate_argnums=0)

    averages: how many there are; as many decays go to `train_step`.
    """
    def copied(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.copy(leaf) if isinstance(leaf, jax.Array | np.ndarray) else leaf, tree)

    kept = tuple(copied(params) for _ in range(averages))
    return TrainState(copied(params), kept, copied(optimizer.init(params)), jnp.int32(0))


def train_step(
    state: TrainState,
    batch: Any,
    key: jax.Array,
    *,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    decays: Sequence[Decay] = (warmed(),),
    accumulate: int = 1,
    clip: float | None = None,
    dtype: Any = None,
    remat: bool = False,
    averaged: bool = False,
) -> tuple[TrainState, Metrics]:
    """One step down the gradient: (new state, metrics). A pure function; jit it with `loss` and `optimizer` bound.

        average = d average + (1 - d) params,  d = decay(i) in step i = 0, 1, ...

    Args:
        state: from `init` or the step before.
        batch: what `loss` takes, a pytree of (b, ...).
        key: a JAX key.
        loss: (params, batch, key) -> the mean over the batch, or (that, more numbers by their names).
        optimizer: an optax transformation.
        decays: of the averages, see `fdiff.training.averages`.
        accumulate: in how many parts of equal size the batch goes through, one after the other, so that a batch need
            not fit at once; the gradient is that of the whole.
        clip: the largest norm of the gradient, to which a longer one is cut, summed in float32.
        dtype: what to compute in, such as jnp.bfloat16, while parameters, averages and gradients stay as they are.
        remat: keep for the backward pass only what enters the blocks of networks, and compute the rest again, for
            less memory and more time; the gradient is the same.
        averaged: the loss is given the first of the averages too, loss(params, batch, key, average), as what is trained
            to agree with its own average needs it.

    Metrics are "loss", "gradient_norm" and what `loss` adds. Raises ValueError for a batch that does not divide.
    """
    def value(params: Any, part: Any, key: jax.Array) -> tuple[jax.Array, Metrics]:
        trees = (params, state.average) if averaged else (params,)
        first, *others = trees if dtype is None else [lowered(tree, dtype) for tree in trees]
        with rematerialized() if remat else contextlib.nullcontext():
            result = loss(first, part, key, *others)
        total, more = result if isinstance(result, tuple) else (result, {})
        return total, {"loss": total, **more}

    gradient_of = jax.grad(value, has_aux=True)
    if accumulate == 1:
        gradient, metrics = gradient_of(state.params, batch, key)
    else:
        gradient, metrics = _accumulated(gradient_of, state.params, batch, key, accumulate)
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(gradient)))
    if clip is not None:
        share = jnp.minimum(1, clip / jnp.maximum(norm, 1e-12))
        gradient = jax.tree.map(lambda leaf: (leaf * share).astype(leaf.dtype), gradient)
    updates, moments = optimizer.update(gradient, state.optimizer, state.params)
    params = jax.tree.map(lambda leaf, change: (leaf + change).astype(leaf.dtype), state.params, updates)
    averages = tuple(
        mixed(average, params, decay(state.done)) for average, decay in zip(state.averages, decays, strict=True)
    )
    return TrainState(params, averages, moments, state.done + 1), {**metrics, "gradient_norm": norm}


def mixed(average: Any, params: Any, d: jax.Array) -> Any:
    """d average + (1 - d) params, leaf by leaf."""
    return jax.tree.map(lambda a, p: (d * a + (1 - d) * p).astype(a.dtype), average, params)


def lowered(params: Any, dtype: Any) -> Any:
    """The parameters with those of floating point in that dtype."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, params)


def _accumulated(
    gradient_of: Callable[..., Any], params: Any, batch: Any, key: jax.Array, parts: int
) -> tuple[Any, Metrics]:
    """The mean gradient and metrics of the parts of a batch, every parts-th sample each, so that shards stay even."""
    count = jax.tree.leaves(batch)[0].shape[0]
    if count % parts:
        raise ValueError(f"a batch of {count} does not divide into {parts} parts; choose another batch size or number")
    split = jax.tree.map(lambda leaf: jnp.swapaxes(leaf.reshape(-1, parts, *leaf.shape[1:]), 0, 1), batch)

    def add(total: Any, part: tuple[jax.Array, Any]) -> tuple[Any, Metrics]:
        i, samples = part
        gradient, metrics = gradient_of(params, samples, keys.fold_in(key, i))
        return jax.tree.map(lambda a, b: a + b.astype(a.dtype) / parts, total, gradient), metrics

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.promote_types(leaf.dtype, jnp.float32)), params)
    gradient, metrics = jax.lax.scan(add, zeros, (jnp.arange(parts), split))
    return gradient, jax.tree.map(lambda each: each.mean(0), metrics)
