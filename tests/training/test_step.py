"""One step of training: what it does, and that it may overwrite its state."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fdiff import training


def loss(params, batch, key):
    return jnp.mean((params["w"] * batch - 1) ** 2) + 0 * jax.random.uniform(key)


def run(donate):
    params, optimizer = {"w": jnp.full(8, 3.0)}, optax.adam(0.1)
    step = jax.jit(partial(training.train_step, loss=loss, optimizer=optimizer), donate_argnums=donate)
    states = [training.init(params, optimizer)]
    for i in range(3):
        state, metrics = step(states[-1], jnp.ones(8), jax.random.key(i))
        states.append(state)
    return params, states, metrics["loss"]


def test_a_step_may_be_given_its_state_to_overwrite():
    _params, states, value = run(())
    again, donated, same = run((0,))
    assert value == same and not again["w"].is_deleted(), "the caller's own parameters stay"
    np.testing.assert_array_equal(donated[-1].params["w"], states[-1].params["w"])
    np.testing.assert_array_equal(donated[-1].average["w"], states[-1].average["w"])
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(donated[0])), "each was overwritten"


def test_the_average_warms_up():
    _, states, _ = run(())
    wanted, seen = states[0].average["w"], [state.params["w"] for state in states[1:]]
    for i, params in enumerate(seen):
        d = (1 + i) / (10 + i)
        wanted = d * wanted + (1 - d) * params
    np.testing.assert_allclose(states[-1].average["w"], wanted, rtol=1e-6)
    assert states[-1].done == 3


def square(params, batch, key):
    return jnp.mean((batch @ params["w"] - 1) ** 2), {"size": jnp.mean(batch**2)}


def step_of(batch, params=None, **options):
    params = {"w": jnp.arange(3.0)} if params is None else params
    optimizer = optax.sgd(1.0)
    return training.train_step(training.init(params, optimizer), batch, jax.random.key(0), loss=square,
                               optimizer=optimizer, **options)


BATCH = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)


def test_a_batch_in_parts_gives_the_gradient_of_the_whole():
    (whole, metrics), (parts, same) = step_of(BATCH), step_of(BATCH, accumulate=4)
    np.testing.assert_allclose(parts.params["w"], whole.params["w"], rtol=1e-6)
    assert set(metrics) == {"loss", "gradient_norm", "size"}
    for name, value in metrics.items():
        np.testing.assert_allclose(same[name], value, rtol=1e-6)
    with pytest.raises(ValueError, match="a batch of 8 does not divide into 3 parts"):
        step_of(BATCH, accumulate=3)


def test_a_long_gradient_is_cut_and_a_short_one_is_not():
    whole, metrics = step_of(BATCH)
    cut, _ = step_of(BATCH, clip=0.5)
    moved = np.arange(3.0) - cut.params["w"]
    assert np.linalg.norm(moved) == pytest.approx(0.5, rel=1e-5)
    np.testing.assert_allclose(moved, (np.arange(3.0) - whole.params["w"]) / metrics["gradient_norm"] * 0.5, rtol=1e-4)
    np.testing.assert_array_equal(step_of(BATCH, clip=1e6)[0].params["w"], whole.params["w"])


def test_the_norm_of_many_small_numbers_of_few_bits_is_summed_in_float32():
    """A sum of 1,000 ones in bfloat16 stalls at 256."""
    optimizer, params = optax.sgd(0.0), {"w": jnp.zeros(1000, jnp.bfloat16)}
    state = training.init(params, optimizer)
    _, metrics = training.train_step(state, None, jax.random.key(0), optimizer=optimizer,
                                     loss=lambda params, batch, key: jnp.sum(params["w"].astype(jnp.float32)))
    assert metrics["gradient_norm"] == pytest.approx(1000**0.5)


def test_computing_in_bfloat16_leaves_the_parameters_in_float32():
    seen = []

    def loss(params, batch, key):
        seen.append(params["w"].dtype)
        return jnp.mean((params["w"] - 1.0) ** 2).astype(jnp.float32)

    optimizer, params = optax.sgd(1e-4), {"w": jnp.zeros(4)}
    state = training.init(params, optimizer)
    for i in range(20):
        state, _ = training.train_step(state, None, jax.random.key(i), loss=loss, optimizer=optimizer,
                                       dtype=jnp.bfloat16)
    assert set(seen) == {jnp.dtype(jnp.bfloat16)} and state.params["w"].dtype == jnp.float32
    np.testing.assert_allclose(state.params["w"], 20 * 1e-4 * 0.5, rtol=0.02)


def test_as_many_averages_as_decays():
    optimizer = optax.sgd(0.1)
    state = training.init({"w": jnp.arange(3.0)}, optimizer, averages=2)
    decays = (training.power(0.05), training.power(0.1))
    state, _ = training.train_step(state, BATCH, jax.random.key(0), loss=square, optimizer=optimizer, decays=decays)
    for average in state.averages:
        np.testing.assert_array_equal(average["w"], state.params["w"])  # after one step there is nothing else
    assert training.init({"w": jnp.ones(1)}, optimizer, averages=0).average["w"] == 1
