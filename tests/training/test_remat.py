"""Rematerialisation: the same loss, gradient and dropout, in less memory."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fdiff
from fdiff import training
from fdiff.training.remat import recomputed

UNET = fdiff.UNet2DModel(
    sample_size=16, block_out_channels=(16, 16), layers_per_block=1, norm_num_groups=4, dropout=0.1,
    down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
)  # fmt: skip


def stepped(params, remat):
    """(new state, metrics, temporary bytes) of a step."""
    optimizer = optax.sgd(1.0)

    def loss(params, x, key):
        out = UNET.apply({"params": params}, x, jnp.arange(len(x)), rngs={"dropout": key})
        return jnp.mean((out - x) ** 2)

    step = jax.jit(partial(training.train_step, loss=loss, optimizer=optimizer, remat=remat))
    x = np.random.default_rng(1).normal(size=(8, 16, 16, 3)).astype(np.float32)
    compiled = step.lower(training.init(params, optimizer), x, jax.random.key(0)).compile()
    state, metrics = compiled(training.init(params, optimizer), x, jax.random.key(0))
    return state, metrics, compiled.memory_analysis().temp_size_in_bytes


def test_the_same_step_in_less_memory():
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: 0.1 * random.normal(size=leaf.shape).astype(np.float32), UNET.shapes())
    (whole, metrics, memory), (again, same, less) = (stepped(params, remat) for remat in (False, True))
    np.testing.assert_allclose(same["loss"], metrics["loss"], rtol=1e-6)
    norm = float(metrics["gradient_norm"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6 * norm, rtol=1e-5), again.params, whole.params)
    assert less < 0.7 * memory, f"{less} bytes in place of {memory}"


def test_a_gradient_that_is_no_number_stays_so():
    def function(scale, x):
        return jnp.sin(scale * x)

    x, gradient = jnp.arange(6.0).reshape(2, 3), jnp.array([[1.0, 1, 1], [jnp.nan, 1, 1]])
    for wanted, got in zip(jax.vjp(function, 2.0, x)[1](gradient), jax.vjp(recomputed(function), 2.0, x)[1](gradient),
                           strict=True):
        assert np.isnan(got).any() and (np.isnan(got) >= np.isnan(wanted)).all()
        np.testing.assert_array_equal(got[:1] if got.ndim else 0, wanted[:1] if got.ndim else 0)
