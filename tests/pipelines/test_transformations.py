"""Pipelines inside jit, in the 64-bit mode and with every kind of key: the pictures of a plain call."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

OPTIONS = {"num_inference_steps": 2, "output_type": "array", "progress": False}


@pytest.fixture(params=["conditional", "sd"])
def call(request):
    """(params, key) -> a picture, and the params of the pipeline."""
    pipe, params = request.getfixturevalue(request.param)

    def draw(params, key):
        if request.param == "conditional":
            return pipe(params, "cat", key=key, **OPTIONS).images
        return pipe(params, "a photo of a cat", key=key, height=16, width=16, **OPTIONS).images

    return draw, params


def test_inside_jit(call):
    draw, params = call
    key = jax.random.key(0)
    np.testing.assert_allclose(jax.jit(draw)(params, key), draw(params, key), atol=1e-4)


def test_in_the_64_bit_mode(call, wide_mode):
    draw, params = call
    narrow = draw(params, jax.random.key(0))
    with wide_mode(True):
        wide = draw(params, jax.random.key(0))
    assert wide.dtype == narrow.dtype == jnp.float32
    np.testing.assert_allclose(wide, narrow, atol=1e-4)


def test_a_picture_of_an_rbg_key_does_not_depend_on_its_batch(unconditional):
    pipe, params = unconditional
    key = jax.random.key(1, impl="unsafe_rbg")

    def draw(key, n):
        return pipe(params, key=key, batch_size=n, **OPTIONS).images

    together = draw(key, 3)
    np.testing.assert_allclose(together[:2], draw(key, 2), atol=1e-5)
    each = jnp.stack([jax.random.fold_in(key, i) for i in (2, 0)])
    np.testing.assert_allclose(draw(each, 2), together[jnp.array([2, 0])], atol=1e-5)
