"""Noise that is given to the nearest samples, all together, and what a flow gains by it."""

from functools import partial
from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdiff
from fdiff import training
from fdiff.training import pairs
from tests.training import rings

RANDOM = np.random.default_rng(0)
CENTRES = 2.0 * np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
SPREAD, STEPS, BATCH = 0.3, 1200, 128


def test_pairs_are_the_nearest_as_a_whole_and_keep_to_their_class():
    x0, noise = RANDOM.standard_normal((6, 2, 1)), RANDOM.standard_normal((6, 2, 1))
    best = min(np.sum((x0 - noise[list(order)]) ** 2) for order in permutations(range(6)))
    assert np.sum((x0 - pairs.optimal(x0, noise)) ** 2) == pytest.approx(best)
    labels = np.array([0, 1, 0, 1, 0, 1])
    among = pairs.optimal(x0, noise, labels)
    for label in (0, 1):
        rows = labels == label
        np.testing.assert_array_equal(np.sort(among[rows], axis=0), np.sort(noise[rows], axis=0))


def flow(paired):
    """Averaged parameters of a small network that learns to flow from noise to four spots, from the same numbers."""
    random = np.random.default_rng(1)
    x0 = CENTRES[random.integers(4, size=(STEPS, BATCH))] + SPREAD * random.standard_normal((STEPS, BATCH, 2))
    noise = random.standard_normal((STEPS, BATCH, 2))
    if paired:
        noise = np.stack([pairs.optimal(*both) for both in zip(x0, noise, strict=True)])
    batches = {"x0": jnp.asarray(x0, jnp.float32), "noise": jnp.asarray(noise, jnp.float32)}

    def loss(params, batch, key):
        network = jax.tree_util.Partial(rings.WHOLE, params)
        scheduler = fdiff.FlowMatchEulerDiscreteScheduler()
        return training.denoising_loss(network, scheduler, batch["x0"], key, noise=batch["noise"])

    optimizer = optax.adam(optax.cosine_decay_schedule(4e-3, STEPS))
    step = partial(training.train_step, loss=loss, optimizer=optimizer, decays=(training.warmed(0.99),))

    @jax.jit
    def run(state, batches, keys):
        return jax.lax.scan(lambda state, some: step(state, *some), state, (batches, keys))[0]

    state = training.init(rings.init(jax.random.key(0)), optimizer)
    return run(state, batches, jax.random.split(jax.random.key(1), STEPS)).average


def test_a_flow_along_optimal_pairs_needs_fewer_steps():
    x, errors = RANDOM.standard_normal((512, 2)).astype(np.float32), {}
    for paired in (False, True):
        network = jax.tree_util.Partial(rings.WHOLE, flow(paired))

        def drawn(n, network=network):
            plan = fdiff.FlowMatchEulerDiscreteScheduler().plan(n).pad(100)
            return np.asarray(fdiff.sample(network, plan, plan.start * x))

        exact = drawn(100)
        away = np.linalg.norm(exact[:, None] - CENTRES, axis=-1)
        assert np.mean(away.min(1) < 3 * SPREAD) > 0.85, "it draws the spots"
        assert np.bincount(away.argmin(1), minlength=4).min() > 0.6 * len(x) / 4, "all of them"
        errors[paired] = [float(np.sqrt(np.mean((drawn(n) - exact) ** 2))) for n in (4, 8)]
    assert errors[True][0] < 0.5 * errors[False][0]
    assert errors[True][0] < errors[False][1], "four steps are as good as eight"
