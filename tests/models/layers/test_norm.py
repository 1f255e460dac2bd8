import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdiff.models.layers.norm import GroupNorm, LayerNorm, RMSNorm, normalize_groups
from tests.models.compare import assert_close


def test_group_norm_is_its_formula():
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 12)).astype(np.float32) * 3 + 100
    groups = x.astype(np.float64).reshape(2, 15, 4, 3)
    mean, variance = groups.mean((1, 3), keepdims=True), groups.var((1, 3), keepdims=True)
    expected = ((groups - mean) / np.sqrt(variance + 1e-3)).reshape(x.shape)
    scale, shift = np.arange(24).reshape(2, 12) - 5.0, np.arange(12.0)
    actual = normalize_groups(x, 4, 1e-3, scale, shift)
    assert_close(actual, expected * scale[:, None, None] + shift)
    model = GroupNorm(4, 1e-3)
    assert_close(model.apply(model.init(jax.random.key(0), x), x), expected)


@pytest.mark.parametrize("mean", [1e2, 1e4, 1e6])
def test_large_means_cost_no_more_than_rounding_the_input_does(mean):
    """E[x^2] - E[x]^2 would leave nothing of a variance of 1 from a mean of 1e4 on."""
    x = (np.random.default_rng(0).standard_normal((2, 8, 8, 64)) + mean).astype(np.float32)
    for model, axes, shape in ((GroupNorm(4), (1, 2, 4), (2, 8, 8, 4, 16)), (LayerNorm(), (1,), (128, 64))):
        wide = x.astype(np.float64).reshape(shape)
        expected = (wide - wide.mean(axes, keepdims=True)) / np.sqrt(wide.var(axes, keepdims=True) + 1e-5)
        actual = model.apply(model.init(jax.random.key(0), x), x)
        assert np.abs(actual - expected.reshape(x.shape)).max() < 4 * np.finfo(np.float32).eps * mean


@pytest.mark.parametrize("model", [GroupNorm(2), LayerNorm(), RMSNorm()])
def test_statistics_are_float32(model):
    """A large mean drowns bfloat16 statistics; the result has the input's dtype."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 64, 64, 8)) + 4, jnp.bfloat16)
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), model.init(jax.random.key(0), x))
    output = model.apply(params, x)
    assert output.dtype == jnp.bfloat16
    assert_close(output, model.apply(params, x.astype(jnp.float32)), 1e-2)


def test_layer_norms_are_their_formulas():
    x = np.random.default_rng(0).standard_normal((2, 3, 12)).astype(np.float32) + 5
    layer, root = LayerNorm(1e-2), RMSNorm(1e-2)
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-2)
    assert_close(layer.apply(layer.init(jax.random.key(0), x), x), expected, 1e-5)
    expected = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-2)
    assert_close(root.apply(root.init(jax.random.key(0), x), x), expected, 1e-5)
    assert not LayerNorm(affine=False).init(jax.random.key(0), x)
