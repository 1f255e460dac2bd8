"""Draws of keys: float32 in every mode, and a key's own whatever stands beside it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdiff import keys

SHAPE = (3, 2)
every = pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])


def some(impl, n=4):
    key = jax.random.key(0, impl=impl)
    return jnp.stack([jax.random.fold_in(key, i) for i in range(n)])


def words(key):
    return np.asarray(jax.random.key_data(key))


@every
def test_one_key_draws_what_jax_draws(impl):
    key = some(impl)[1]
    np.testing.assert_array_equal(keys.normal(key, SHAPE), jax.random.normal(key, SHAPE, jnp.float32))
    np.testing.assert_array_equal(words(keys.fold_in(key, 3)), words(jax.random.fold_in(key, 3)))
    np.testing.assert_array_equal(words(keys.split(key)), words(jax.random.split(key)))


@every
def test_a_key_in_a_batch_draws_what_it_draws_alone(impl):
    batch = some(impl)
    normal = functools.partial(keys.normal, shape=SHAPE)
    for function in (normal, lambda key: words_of(keys.fold_in(key, 7)), lambda key: words_of(keys.split(key))):
        alone = jnp.stack([function(key) for key in batch])
        np.testing.assert_array_equal(jax.jit(jax.vmap(function))(batch), alone)
        nested = jax.vmap(jax.vmap(function))(batch.reshape(2, 2))
        np.testing.assert_array_equal(nested.reshape(alone.shape), alone)
    numbered = jax.vmap(lambda i: words_of(keys.fold_in(batch[0], i)))(jnp.arange(4))
    np.testing.assert_array_equal(numbered, [words(keys.fold_in(batch[0], i)) for i in range(4)])


def words_of(key):
    return jax.random.key_data(key)


@every
def test_gradients_pass_beside_a_draw(impl):
    def loss(x):
        return jnp.sum(x * jax.vmap(lambda key: keys.normal(key, SHAPE))(some(impl)))

    wanted = sum(keys.normal(key, SHAPE) for key in some(impl))
    np.testing.assert_allclose(jax.grad(loss)(jnp.ones(SHAPE)), wanted, rtol=1e-5)


@every
def test_keys_of_the_old_style(impl):
    raw = jax.random.PRNGKey(5, impl=impl)
    if impl == "unsafe_rbg":  # which its words alone do not tell apart from rbg
        with jax.default_prng_impl(impl):
            typed = keys.typed(raw)
    else:
        typed = keys.typed(raw)
    assert jax.random.key_impl(typed) == impl
    np.testing.assert_array_equal(words(typed), raw)
    np.testing.assert_array_equal(words(keys.typed(jax.random.key(5, impl=impl))), raw)


@every
def test_the_64_bit_mode_draws_the_same(impl, wide_mode):
    with wide_mode(False):
        wanted = keys.normal(some(impl)[0], SHAPE)
    with wide_mode(True):
        got = keys.normal(some(impl)[0], SHAPE)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, wanted)
