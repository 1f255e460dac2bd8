"""One step of training with optax, and the running average of the parameters that sampling uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    import optax

Loss = Callable[[Any, Any, jax.Array], jax.Array]


class TrainState(NamedTuple):
    """What training carries: parameters, their running average, the optimizer's state and the count of steps."""

    params: Any
    average: Any
    optimizer: Any
    done: jax.Array


def init(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step, in arrays of its own, so that a jitted step may be given them to overwrite:

        step = jax.jit(partial(train_step, loss=loss, optimizer=optimizer), donate_argnums=0)
    """
    def copied(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.copy(leaf) if isinstance(leaf, jax.Array | np.ndarray) else leaf, tree)

    return TrainState(copied(params), copied(params), copied(optimizer.init(params)), jnp.int32(0))


def train_step(
    state: TrainState,
    batch: Any,
    key: jax.Array,
    *,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    decay: float = 0.999,
) -> tuple[TrainState, jax.Array]:
    """One step down the gradient: (new state, loss). A pure function; jit it with `loss` and `optimizer` bound.

        average = d average + (1 - d) params,  d = min(decay, (1 + i) / (10 + i))

    Args:
        state: from `init` or the step before.
        batch: what `loss` takes.
        key: a JAX key.
        loss: (params, batch, key) -> number.
        optimizer: an optax transformation.
        decay: of the average (Karras et al. 2024 call it EMA), warmed up over the first steps.
    """
    value, gradient = jax.value_and_grad(loss)(state.params, batch, key)
    updates, moments = optimizer.update(gradient, state.optimizer, state.params)
    params = jax.tree.map(jnp.add, state.params, updates)
    d = jnp.minimum(decay, (1 + state.done) / (10 + state.done))
    average = jax.tree.map(lambda a, p: d * a + (1 - d) * p, state.average, params)
    return TrainState(params, average, moments, state.done + 1), value
