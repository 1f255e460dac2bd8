"""Guiders are networks made of networks: their formulas, and that scales and conditions are data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from fdiff import guidance

X = np.random.default_rng(0).normal(size=(3, 2, 2, 1)).astype(np.float32)
CONDITION, NEGATIVE = np.array([1.0, 2.0, 3.0], np.float32), np.zeros(3, np.float32)


def network(weight, x, t, condition):
    return weight * x * (1 + condition[:, None, None, None]) + t


def test_classifier_free_is_the_formula():
    guided = guidance.classifier_free(Partial(network, 2.0), CONDITION, NEGATIVE, 3.0)(X, 0.5)
    positive, negative = (network(2.0, X, 0.5, c) for c in (CONDITION, NEGATIVE))
    np.testing.assert_allclose(guided, negative + 3 * (positive - negative), rtol=1e-6)


def test_scale_one_is_the_condition_alone_and_scales_may_differ():
    scales = np.array([1.0, 0.0, 2.0])
    guided = guidance.classifier_free(Partial(network, 2.0), CONDITION, NEGATIVE, scales)(X, 0.5)
    np.testing.assert_allclose(guided[0], network(2.0, X, 0.5, CONDITION)[0], rtol=1e-6)
    np.testing.assert_allclose(guided[1], network(2.0, X, 0.5, NEGATIVE)[1], rtol=1e-6)


def test_rescale_restores_the_deviation():
    guided = guidance.classifier_free(Partial(network, 2.0), CONDITION, NEGATIVE, 5.0, rescale=1.0)(X, 0.5)
    wanted = network(2.0, X, 0.5, CONDITION).std(axis=(1, 2, 3))
    np.testing.assert_allclose(np.asarray(guided).std(axis=(1, 2, 3)), wanted, rtol=1e-5)


def test_a_predicted_variance_is_the_conditions():
    def with_variance(x, t, condition):
        out = network(2.0, x, t, condition)
        return jnp.concatenate([out, 10 + out], -1)

    guided = guidance.classifier_free(with_variance, CONDITION, NEGATIVE, 3.0)(X, 0.5)
    np.testing.assert_allclose(guided[..., 1:], 10 + network(2.0, X, 0.5, CONDITION), rtol=1e-6)


@pytest.mark.parametrize(("t", "scale"), [(0.1, 1.0), (0.5, 3.0), (0.9, 1.0)])
def test_interval(t, scale):
    guided = guidance.classifier_free(Partial(network, 2.0), CONDITION, NEGATIVE, 3.0)
    plain = guidance.given(Partial(network, 2.0), CONDITION)
    got = guidance.interval(guided, plain, 0.3, 0.7)(X, jnp.float32(t))
    wanted = guidance.classifier_free(Partial(network, 2.0), CONDITION, NEGATIVE, scale)(X, t)
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


def test_scale_and_condition_compile_nothing():
    traces = 0

    @jax.jit
    def call(network, x, t):
        nonlocal traces
        traces += 1
        return network(x, t)

    base = Partial(network, 2.0)
    for scale in (1.0, 2.0):
        for condition in (CONDITION, 2 * CONDITION):
            call(guidance.classifier_free(base, condition, NEGATIVE, scale), X, 0.5)
    assert traces == 1
