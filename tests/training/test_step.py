"""One step of training: what it does, and that it may overwrite its state."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fdiff import training


def loss(params, batch, key):
    return jnp.mean((params["w"] * batch - 1) ** 2) + 0 * jax.random.uniform(key)


def run(donate):
    params, optimizer = {"w": jnp.full(8, 3.0)}, optax.adam(0.1)
    step = jax.jit(partial(training.train_step, loss=loss, optimizer=optimizer), donate_argnums=donate)
    states = [training.init(params, optimizer)]
    for i in range(3):
        state, value = step(states[-1], jnp.ones(8), jax.random.key(i))
        states.append(state)
    return params, states, value


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
