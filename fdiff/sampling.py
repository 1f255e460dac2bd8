"""Run a plan: `init` and `step` by hand, `sample` as one compiled scan, `steps` as a generator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import keys
from fdiff.lean import Program
from fdiff.plan import Plan
from fdiff.rows import at_row, fitted

Network = Callable[[jax.Array, jax.Array], jax.Array]
Edit = Callable[[jax.Array, jax.Array], jax.Array]

jax.tree_util.register_dataclass(
    Plan,
    data_fields=list(Plan.__dataclass_fields__),
    meta_fields=[],
)


class State(NamedTuple):
    """What a sampler carries: slots (K, *x.shape), float32, slot 0 being x; and how many rows are done.

    memory: a tree of arrays, what a network that remembers gave beside its output; None for one that does not.
    """

    slots: jax.Array
    done: jax.Array
    memory: Any = None

    @property
    def x(self) -> jax.Array:
        """The sample."""
        return self.slots[0]


def init(plan: Plan, x: jax.Array) -> State:
    """The state before the first row: x (of standard deviation `plan.start`) and empty memory."""
    return _begin(jnp.asarray(x), plan.slots)


@partial(jax.jit, static_argnums=1, inline=True)  # the plan itself would make it a program for each number of rows
def _begin(x: jax.Array, slots: int) -> State:
    x = x.astype(jnp.float32)
    return State(jnp.stack([x, *[jnp.zeros_like(x)] * (slots - 1)]), jnp.int32(0))


def predict(row: Plan, x: jax.Array, out: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What the network says about x: (x0, eps), both shaped like x, with x0 clipped as the row asks.

    x0 = clip(x0_of[0] x + x0_of[1] out), eps = eps_of[0] x + eps_of[1] out. Where `out` has twice the
    channels of x, its first half is the prediction.
    """
    out = _halves(out, x)[0].astype(jnp.float32)
    x0 = row.x0_of[0] * x + row.x0_of[1] * out
    eps = row.eps_of[0] * x + row.eps_of[1] * out
    return _clip(x0, row.clip), eps


def step(row: Plan, state: State, out: jax.Array, noise: jax.Array | float = 0.0) -> State:
    """One row of the table: state = carry @ state + from_x0 * x0 + from_eps * eps + from_noise * noise.

    Args:
        row: `plan[i]`.
        state: from `init` or the step before.
        out: what the network made of (c_in * x, t).
        noise: standard normal, shaped like x; only stochastic rows use it.
    """
    x = state.x
    x0, eps = predict(row, x, out)
    variance = _halves(out, x)[1]
    if variance is not None:
        variance = variance.astype(jnp.float32)
        a, b, c = row.variance_of
        noise = noise * jnp.sqrt(jnp.maximum(jnp.exp(a + b * variance) + c * variance, 0.0))
    return State(_combine(row, state.slots, x0, eps, noise), state.done + 1, state.memory)


def sample(
    network: Network,
    plan: Plan,
    x: jax.Array,
    key: jax.Array | None = None,
    *,
    noise: jax.Array | None = None,
    after: Edit | None = None,
    memory: Any = None,
    remat: bool = False,
) -> jax.Array:
    """Run a whole plan as one `lax.scan` and return the last x, shaped like the first.

    Compiled once for each network function, shape, number of rows and number of slots: other schedulers, step
    counts (see `Plan.pad`), guidance scales and parameters are data. Differentiable, also in the plan.

    Args:
        network: (x, t) -> out. A `jax.tree_util.Partial(function, params, ...)` makes its parameters
            arguments of the compiled program; a plain function is compiled anew for each function object. For
            arguments that change from row to row see `fdiff.rows.ByRow`.
        plan: from a scheduler's `plan`, or `tabulate`.
        x: (b, ...) the first sample, of standard deviation `plan.start`.
        key: a JAX key for stochastic plans; or (b,) keys, one for each sample of the batch.
        noise: (n, *x.shape) standard normal draws in place of the key.
        after: (x, i) -> x, what becomes of x after row i, such as keeping the part of it that is known (inpainting);
            a Partial, as the network.
        memory: a tree of arrays, for a network that remembers from row to row: (x, t, memory) -> (out, memory), the
            first row being given this one.
        remat: whether a gradient computes each row again on its way back, so that it keeps the state between rows and
            what one network call needs, in place of what all of them need; a third more time (Chen et al. 2016).

    Raises ValueError where the plan is stochastic and neither key nor noise is given, and where it has fewer rows than
    a `ByRow` of the network.
    """
    _needs_noise(plan, key, noise)
    network = fitted(as_partial(network), plan)
    return _sample(network, plan, jnp.asarray(x), key, noise, after and as_partial(after), memory, remat)


def steps(
    network: Network,
    plan: Plan,
    x: jax.Array,
    key: jax.Array | None = None,
    *,
    noise: jax.Array | None = None,
    after: Edit | None = None,
    memory: Any = None,
) -> Steps:
    """The same run as `sample`, to iterate over: (state, x0) after each row, for bars, previews, early stops.

        for state, x0 in tqdm(steps(network, plan, x, key)): ...

    Arguments, all but `remat`, and errors are those of `sample`.
    """
    _needs_noise(plan, key, noise)
    edit = after and as_partial(after)
    return Steps(fitted(as_partial(network), plan), plan, jnp.asarray(x), key, noise, edit, memory)


@dataclasses.dataclass(frozen=True, eq=False)
class Steps:
    """A run that is about to happen: `len` is its rows, iterating runs it from the start."""

    network: Network
    plan: Plan
    x: jax.Array
    key: jax.Array | None
    noise: jax.Array | None
    after: Edit | None = None
    memory: Any = None

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[tuple[State, jax.Array]]:
        state = init(self.plan, self.x)._replace(memory=self.memory)
        for i in range(len(self)):
            given = None if self.noise is None else self.noise[i]
            state, x0 = _advance(at_row(self.network, i), self.plan[i], state, self.key, given, self.after)
            yield state, x0


@partial(Program, static_argnames="remat", inline=True)
def _sample(
    network: Network,
    plan: Plan,
    x: jax.Array,
    key: jax.Array | None,
    noise: jax.Array | None,
    after: Edit | None,
    memory: Any,
    remat: bool,
) -> jax.Array:
    def body(state: State, inputs: tuple[Plan, jax.Array | None]) -> tuple[State, None]:
        row, given = inputs
        return _run(at_row(network, state.done), row, state, key, given, after)[0], None

    row = jax.checkpoint(body, prevent_cse=False) if remat else body  # in a scan there is nothing to prevent
    return jax.lax.scan(row, init(plan, x)._replace(memory=memory), (plan, noise))[0].x


@Program
def _advance(
    network: Network, row: Plan, state: State, key: jax.Array | None, given: jax.Array | None, after: Edit | None
) -> tuple[State, jax.Array]:
    return _run(network, row, state, key, given, after)


def _run(
    network: Network, row: Plan, state: State, key: jax.Array | None, given: jax.Array | None, after: Edit | None
) -> tuple[State, jax.Array]:
    """One row with its network call, its noise and what comes after; a row with c_in 0 calls nothing."""
    x, noise = state.x, _noise(row, state, key, given)

    def call(state: State) -> tuple[State, jax.Array]:
        seen: Any = (row.c_in * x, row.t) if state.memory is None else (row.c_in * x, row.t, state.memory)
        said: Any = network(*seen)
        out, memory = (said, None) if state.memory is None else said
        return step(row, state._replace(memory=memory), out, noise), predict(row, x, out)[0]

    def skip(state: State) -> tuple[State, jax.Array]:
        return State(_combine(row, state.slots, 0.0, 0.0, noise), state.done + 1, state.memory), x

    reached, x0 = jax.lax.cond(row.c_in != 0, call, skip, state)
    if after is not None:
        edited = after(reached.x, state.done).astype(jnp.float32)
        reached = reached._replace(slots=jnp.concatenate([edited[None], reached.slots[1:]]))
    return reached, x0


def _noise(row: Plan, state: State, key: jax.Array | None, given: jax.Array | None) -> jax.Array:
    """Standard normal noise for this row; nothing is drawn where the row has no use for it."""
    if given is not None:
        return jnp.asarray(given, jnp.float32)
    shape, wanted = state.x.shape, jnp.any(row.from_noise != 0)
    if key is None:  # reached with a traced plan only: better not a number than a deterministic surprise
        return jnp.where(wanted, jnp.full(shape, jnp.nan), 0.0)
    nothing = jnp.zeros_like(state.x)  # which lies on the devices as x does: under shard_map and Explicit axes,
    return jax.lax.cond(wanted, lambda: draw(key, state.done, shape) + nothing, lambda: nothing)  # so must both


def draw(key: jax.Array, i: jax.Array | int, shape: tuple[int, ...]) -> jax.Array:
    """The noise (b, ...) of row i: from one key, or from (b,) keys, one for each sample."""
    key = keys.typed(key)
    if key.ndim == 0:
        return keys.normal(keys.fold_in(key, i), shape)
    return jax.vmap(lambda one: keys.normal(keys.fold_in(one, i), shape[1:]))(key)


def _combine(
    row: Plan, slots: jax.Array, x0: jax.Array | float, eps: jax.Array | float, noise: jax.Array | float
) -> jax.Array:
    """carry @ slots + from_x0 x0 + from_eps eps + from_noise noise, where no matrix unit rounds it."""
    k = slots.shape[0]
    return jnp.stack([
        sum((row.carry[i, j] * slots[j] for j in range(k)), start=row.from_x0[i] * x0)
        + row.from_eps[i] * eps + row.from_noise[i] * noise
        for i in range(k)
    ])


def _clip(x0: jax.Array, clip: jax.Array) -> jax.Array:
    limit, quantile = clip[0], clip[1]

    def fixed(x0: jax.Array) -> jax.Array:
        return jnp.clip(x0, -limit, limit)

    def dynamic(x0: jax.Array) -> jax.Array:
        size = jnp.quantile(jnp.abs(x0.reshape(x0.shape[0], -1)), quantile, axis=1)
        size = jnp.clip(size, 1.0, limit).reshape(-1, *[1] * (x0.ndim - 1))
        return jnp.clip(x0, -size, size) / size

    return jax.lax.cond(quantile > 0, dynamic, fixed, x0) if x0.ndim else fixed(x0)


def _halves(out: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """The prediction, and the predicted variance where `out` has twice the channels of x."""
    if out.shape == x.shape:
        return out, None
    if out.shape != (*x.shape[:-1], 2 * x.shape[-1]):
        raise ValueError(f"the network returned shape {out.shape} for a sample of shape {x.shape}")
    prediction, variance = jnp.split(out, 2, axis=-1)
    return prediction, variance


def as_partial(network: Callable[..., jax.Array]) -> Network:
    """The network as a jax.tree_util.Partial, so that jit takes it as an argument."""
    return network if isinstance(network, jax.tree_util.Partial) else jax.tree_util.Partial(network)


def _needs_noise(plan: Plan, key: jax.Array | None, noise: jax.Array | None) -> None:
    concrete = not isinstance(plan.from_noise, jax.core.Tracer)
    if key is None and noise is None and concrete and np.any(plan.from_noise):
        raise ValueError("this plan draws noise: pass a key, as in "
                         "sample(network, plan, x, jax.random.key(0))")
