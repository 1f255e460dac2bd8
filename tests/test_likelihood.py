"""The likelihood against Gaussians whose density is known, and arcs between noises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdiff import solvers
from fdiff.likelihood import log_likelihood, slerp
from fdiff.plan import Grid, tabulate
from fdiff.rows import ByRow

MEAN = np.array([[0.4, -0.2, 0.1]], np.float32)
STD = np.array([0.5, 1.0, 0.8], np.float32)


def plan(n, preserving):
    """From r = 2000 to 0.01, t the row's r, x of variance one (preserving) or exploding."""
    r = np.geomspace(2000, 0.01, n + 1)
    alpha = 1 / np.sqrt(1 + r**2) if preserving else np.ones(n + 1)
    sigma = r * alpha
    return tabulate(solvers.ddim(), Grid(r[:-1], alpha[:-1], sigma[:-1], alpha[1:], sigma[1:]), "epsilon")


def network(preserving):
    def eps(x, r):
        alpha = 1 / jnp.sqrt(1 + r**2) if preserving else 1.0
        sigma = alpha * r
        return sigma * (x - alpha * MEAN[:, None]) / (alpha**2 * STD**2 + sigma**2)

    return eps


def density(x, alpha, sigma):
    variance = (alpha * STD) ** 2 + sigma**2
    return np.sum(-0.5 * (x[:, 0] - alpha * MEAN) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance), axis=1)


@pytest.mark.parametrize("preserving", [True, False])
def test_exact_trace(preserving):
    table = plan(1500, preserving)
    x = np.random.default_rng(0).normal(size=(5, 1, 3)).astype(np.float32)
    got = log_likelihood(network(preserving), table, x)
    np.testing.assert_allclose(got, density(x, table.alpha[-1], table.sigma[-1]), atol=5e-3)


def test_order_two():
    x = np.random.default_rng(0).normal(size=(5, 1, 3)).astype(np.float32)

    def error(n):
        table = plan(n, True)
        return np.abs(log_likelihood(network(True), table, x) - density(x, table.alpha[-1], table.sigma[-1])).mean()

    assert 3 < error(40) / error(80) < 6


def test_what_holds_at_a_row():
    table = plan(12, True)
    x = np.random.default_rng(0).normal(size=(5, 1, 3)).astype(np.float32)
    scales = np.linspace(0.5, 1, 12, dtype=np.float32)
    base = network(True)

    def by_t(x, r):
        return jnp.asarray(scales)[jnp.argmin(jnp.abs(table.t - r))] * base(x, r)

    by_row = jax.tree_util.Partial(lambda scale, x, r: scale * base(x, r), ByRow(scales))
    wanted = log_likelihood(jax.tree_util.Partial(lambda s, x, r: by_t(x, r), 0.0), table, x)
    np.testing.assert_allclose(log_likelihood(by_row, table, x), wanted, rtol=1e-5)


def test_hutchinson_is_unbiased():
    table = plan(60, True)
    x = np.random.default_rng(0).normal(size=(2, 1, 3)).astype(np.float32)
    mix = jnp.array([[1.0, 0.3, 0.0], [0.0, 1.0, 0.2], [0.1, 0.0, 1.0]])  # a divergence that probes disagree on

    def mixed(x, r):
        return network(True)(x, r) @ mix

    exact = log_likelihood(mixed, table, x)
    estimates = jnp.stack([log_likelihood(mixed, table, x, jax.random.key(k), probes=8) for k in range(8)])
    spread = np.std(estimates, axis=0)
    assert np.all(spread > 0)
    assert np.all(np.abs(estimates.mean(0) - exact) < 4 * spread / np.sqrt(8))


def test_slerp():
    a, b = jax.random.normal(jax.random.key(0), (2, 1000))
    np.testing.assert_allclose(slerp(a, b, 0.0), a, atol=1e-5)
    np.testing.assert_allclose(slerp(a, b, 1.0), b, atol=1e-5)
    assert abs(float(jnp.std(slerp(a, b, 0.5))) - 1) < 0.05
    np.testing.assert_allclose(slerp(a, a, 0.3), a, atol=1e-5)
