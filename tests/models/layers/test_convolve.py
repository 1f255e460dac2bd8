import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdiff.models.layers import convolve as module
from fdiff.models.layers.convolve import convolve, upsample, upsample_and_convolve
from tests.models.compare import assert_close


def arrays(*shapes):
    random = np.random.default_rng(0)
    return [random.standard_normal(shape).astype(np.float32) for shape in shapes]


def gradients(function, *inputs):
    return jax.jit(jax.grad(lambda x: jnp.square(function(*x)).sum()))(inputs)


@pytest.mark.parametrize("stride, padding", [(1, 1), (2, 1), (2, ((0, 1), (0, 1))), (1, 0), (3, 2)])
def test_gathered_patches_are_a_convolution(monkeypatch, stride, padding):
    x, kernel = arrays((1, 5, 4, 48), (3, 3, 48, 5))
    expected = convolve(x, kernel, stride, padding)
    expected_gradients = gradients(lambda x, kernel: convolve(x, kernel, stride, padding), x, kernel)
    monkeypatch.setattr(module, "LARGE_KERNEL", 1)
    convolve.clear_cache()
    assert "conv_general_dilated" not in jax.jit(convolve, static_argnums=(2, 3)).lower(
        x, kernel, stride, padding
    ).as_text("hlo")
    assert_close(convolve(x, kernel, stride, padding), expected, 1e-5)
    for actual, wanted in zip(
        gradients(lambda x, kernel: convolve(x, kernel, stride, padding), x, kernel), expected_gradients, strict=True
    ):
        assert_close(actual, wanted, 1e-5)
    convolve.clear_cache()


def test_multiplying_before_doubling():
    x, kernel = arrays((2, 3, 4, 6), (3, 3, 6, 5))

    def after(x, kernel):
        return convolve(upsample(x), kernel, padding=1)

    assert_close(jax.jit(upsample_and_convolve)(x, kernel), after(x, kernel), 1e-5)
    for actual, expected in zip(gradients(upsample_and_convolve, x, kernel), gradients(after, x, kernel), strict=True):
        assert_close(actual, expected, 1e-5)
    half = upsample_and_convolve(jnp.asarray(x, jnp.bfloat16), jnp.asarray(kernel, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    assert_close(half, after(x, kernel), 0.02)


def test_upsample_to_a_size():
    (x,) = arrays((1, 2, 3, 1))
    np.testing.assert_array_equal(upsample(x)[0, :, :, 0], x[0, :, :, 0].repeat(2, 0).repeat(2, 1))
    expected = x[0, [0, 0, 1]][:, [0, 0, 1, 1, 2]]
    np.testing.assert_array_equal(upsample(x, (3, 5))[0], expected)
