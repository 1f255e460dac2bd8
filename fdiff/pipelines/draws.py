"""The random numbers of a run: from a JAX key, or as torch and diffusers draw them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import keys
from fdiff.plan import Plan
from fdiff.torch_random import CPUGenerator, Generator, channels_last

BEFORE = 2**31 - 1  # what a key is folded with for numbers apart from those of a run, far above any batch's size
Seed = int | Generator | Sequence[int | Generator] | None


class Draws(NamedTuple):
    """Random numbers of a run: arrays asked for, and the key or the rows (n, b, ...) of its steps' noise."""

    arrays: tuple[jax.Array, ...]
    key: jax.Array
    noise: jax.Array | None = None


class Wanted(NamedTuple):
    """An array to draw, (b, *shape); torch draws only `rows` of it where they are fewer, and repeats them.

    With 0 rows nobody looks at it: torch then draws nothing, and a key keeps its place.
    """

    shape: tuple[int, ...]
    rows: int | None = None


def draw(key: jax.Array, batch_size: int, *wanted: Wanted) -> Draws:
    """Standard normal arrays, and keys for the steps; image i depends on its own key alone."""
    shapes = tuple((one.shape, one.rows != 0) for one in wanted)
    return Draws(*_drawn(checked_key(key, batch_size), batch_size, shapes))


@partial(jax.jit, static_argnums=(1, 2))
def _drawn(
    key: jax.Array, batch_size: int, wanted: tuple[tuple[tuple[int, ...], bool], ...]
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    first, later = image_keys(key, batch_size)
    folded = [jax.vmap(keys.fold_in, (0, None))(first, i) for i in range(len(wanted))]
    arrays = (
        normal(each, shape) if used else jnp.zeros((batch_size, *shape), jnp.float32)
        for each, (shape, used) in zip(folded, wanted, strict=True)
    )
    return tuple(arrays), later


def checked_key(key: Any, batch_size: int) -> jax.Array:
    """The key, or (b,) keys, of the new style.

    Raises ValueError for what is no key, or where the number of keys is not the batch size.
    """
    if isinstance(key, jax.Array | np.ndarray):
        key = keys.typed(key)
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim < 2):
        raise ValueError(f"key must be a JAX key or one for each image, such as jax.random.key(0), "
                         f"not {type(key).__name__}")
    if key.ndim and len(key) != batch_size:
        raise ValueError(f"{len(key)} keys are given for {batch_size} images; pass one key, or one for each image")
    return key


@partial(jax.jit, static_argnums=1)
def image_keys(key: jax.Array, batch_size: int) -> tuple[jax.Array, jax.Array]:
    """Keys for the first sample and for the steps, (b,) each; image i depends on its own key alone.

    `key` is one key, from which image i takes the i-th, or (b,) keys.
    """
    if key.ndim == 0:
        key = jax.vmap(keys.fold_in, (None, 0))(key, jnp.arange(batch_size))
    pairs = jax.vmap(keys.split)(key)
    return pairs[:, 0], pairs[:, 1]


@partial(jax.jit, static_argnums=1)
def normal(each: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal (b, *shape), each sample from its own key."""
    return jax.vmap(lambda key: keys.normal(key, shape))(each)


def draw_as_asked(
    key: jax.Array | None, torch_seed: Seed, plan: Plan, shape: tuple[int, ...], dtype: Any, *wanted: Wanted,
) -> Draws:  # fmt: skip
    """`draw`, or what torch's generators give in the order in which diffusers asks them.

    shape: (b, h, w, c), that of the latents and so of the steps' noise. dtype: what torch draws in.
    A key is needed unless nothing is drawn: no array is wanted, and the plan is deterministic.

    Raises ValueError for none or both of key and torch_seed.
    """
    if (key is None) == (torch_seed is None):
        if key is not None:
            raise ValueError("both key and torch_seed are given; pass one of them")
        if any(one.rows != 0 for one in wanted) or np.any(plan.from_noise):
            raise ValueError("noise is needed: pass key=jax.random.key(0), or torch_seed=0 for torch's numbers")
    batch_size = shape[0]
    if torch_seed is None:
        return draw(jax.random.key(0) if key is None else key, batch_size, *wanted)
    generators = _generators(torch_seed)
    if isinstance(generators, list) and len(generators) != batch_size:
        raise ValueError(f"{len(generators)} seeds are given for {batch_size} images; pass one, or one each")

    def drawn(shape: tuple[int, ...], rows: int = batch_size) -> np.ndarray:
        if rows == 0:
            return np.zeros((batch_size, *shape), np.float32)
        some = generators[:rows] if isinstance(generators, list) else generators
        array = channels_last(some, (rows, *shape), dtype).astype(np.float32)
        return np.repeat(array, batch_size // rows, axis=0)

    arrays = tuple(jnp.asarray(drawn(one.shape, batch_size if one.rows is None else one.rows)) for one in wanted)
    return Draws(arrays, draw(jax.random.key(0), batch_size).key, _step_noise(plan, drawn, shape[1:]))


def draw_before(
    key: jax.Array | None, torch_seed: Seed, plan: Plan, shape: tuple[int, ...], dtype: Any, *wanted: Wanted
) -> tuple[tuple[jax.Array, ...], Seed]:
    """What is drawn before the run's own numbers, which a key leaves as they are: the arrays, and the seed to go on.

    See `draw_as_asked`; torch's generators go on where they were.
    """
    seed, apart = None if torch_seed is None else _generators(torch_seed), key
    if key is not None:
        key = checked_key(key, shape[0])
        apart = jax.vmap(keys.fold_in, (0, None))(key, BEFORE) if key.ndim else keys.fold_in(key, BEFORE)
    return draw_as_asked(apart, seed, plan[:0], shape, dtype, *wanted).arrays, seed


def _generators(torch_seed: Any) -> Any:
    """A generator, or one for each image."""
    if isinstance(torch_seed, np.ndarray) and torch_seed.ndim:
        torch_seed = torch_seed.tolist()
    if isinstance(torch_seed, Sequence) and not isinstance(torch_seed, str):
        return [_generator(seed) for seed in torch_seed]
    return _generator(torch_seed)


def _generator(seed: int | Generator) -> Generator:
    if isinstance(seed, int | np.integer):
        return CPUGenerator(int(seed))
    if not hasattr(seed, "randn"):
        raise ValueError(f"torch_seed is {seed!r}; it must be a whole number, or a generator of fdiff.torch_random")
    return seed


def _step_noise(plan: Plan, drawn: Any, shape: tuple[int, ...]) -> jax.Array | None:
    """(n, b, *shape) for stochastic plans: each row draws what diffusers draws there, and keeps the last if it uses it.
    """
    used, noise = np.any(np.asarray(plan.from_noise) != 0, axis=-1), []
    for row, draws in enumerate(np.asarray(plan.draws).astype(int)):
        arrays = [drawn(shape) for _ in range(draws)]
        if used[row]:
            noise.append((row, arrays[-1]))
    if not noise:
        return None
    rows = np.zeros((len(plan), *noise[0][1].shape), np.float32)
    for row, array in noise:
        rows[row] = array
    return jnp.asarray(rows)
