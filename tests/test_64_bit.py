"""With JAX's 64-bit types switched on, everything is what it is without: float32, and the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdiff
from fdiff import guidance, training
from fdiff.models.layers.feed_forward import FeedForward
from tests.schedulers.test_every_scheduler import CLASSES, STEPS
from tests.some import some

X = np.random.default_rng(0).normal(size=(2, 2, 2, 3)).astype(np.float32)
C = np.array([0.5, -0.5], np.float32)

NOT_ALONE = ("Model", "AsymmetricAutoencoderKL", "ControlNetXSAdapter")  # or not with their defaults
REQUIRED = {
    "ControlNetUnionModel": {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 64},
    "UNet1DModel": {"extra_in_channels": 16},
}


@pytest.fixture
def same(wide_mode):
    """Check that a function of no arguments gives the same in both modes, and float32."""

    def check(function):
        with wide_mode(False):
            narrow = [np.asarray(leaf) for leaf in jax.tree.leaves(function())]
        with wide_mode(True):
            wide = [np.asarray(leaf) for leaf in jax.tree.leaves(function())]
        assert narrow
        for a, b in zip(narrow, wide, strict=True):
            assert a.dtype == b.dtype
            assert b.dtype == np.float32 or b.dtype.kind in "iub"
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(a).max())

    return check


@jax.tree_util.Partial
def network(x, t):
    assert x.dtype == t.dtype == jnp.float32
    return 0.5 * x + 0.1 * jnp.tanh(x)


@pytest.mark.parametrize("cls", some(CLASSES, every=4), ids=lambda cls: cls.__name__)
def test_schedulers(cls, same):
    scheduler, n, key = cls(), STEPS.get(cls.__name__, 4), jax.random.key(0)
    plan = scheduler.plan(n)
    t = plan.t[0]
    same(lambda: fdiff.sample(network, plan.pad(rows=24, slots=8), X, key))
    same(lambda: (scheduler.levels(t), scheduler.levels(plan.t[:2])))
    same(lambda: (scheduler.add_noise(X, X, t), scheduler.velocity(X, X, t)))
    same(lambda: scheduler.step(X, t, X, key, num_inference_steps=n)[:2])


def test_guidance(same):
    conditional = jax.tree_util.Partial(lambda x, t, c: network(x, t) * c[:, None, None, None])
    guided = [
        guidance.classifier_free(conditional, C, -C, 3.0, rescale=0.5),
        guidance.adaptive_projected(conditional, C, -C, 3.0),
        guidance.norm_limited(conditional, C, -C, 3.0, limit=0.5),
        guidance.zero_star(conditional, C, -C, 3.0),
        guidance.auto(conditional, conditional, C, 3.0),
        guidance.composed(conditional, [C, -C], [0.3, 0.7]),
    ]
    for one in guided:
        same(lambda one=one: one(jnp.asarray(X), jnp.float32(3)))


def test_likelihood_and_loss(same):
    scheduler, key = fdiff.DDIMScheduler(), jax.random.key(0)
    same(lambda: fdiff.log_likelihood(network, scheduler.plan(4), X, key))
    same(lambda: fdiff.log_likelihood(network, scheduler.plan(4), X))
    told = jax.tree_util.Partial(lambda x, t: network(x, t.astype(jnp.float32)))
    same(lambda: training.denoising_loss(told, scheduler, X, key))


@pytest.mark.parametrize("name", some([name for name in fdiff.models.__all__ if name not in NOT_ALONE], every=4))
def test_models(name, same, wide_mode):
    model = getattr(fdiff, name)(**REQUIRED.get(name, {}))
    with wide_mode(True):
        shapes = model.shapes()
        outputs = jax.eval_shape(lambda params: model.apply({"params": params}, *model.example_inputs()), shapes)
    assert {leaf.dtype for leaf in jax.tree.leaves((shapes, outputs))} <= {np.dtype(np.float32), np.dtype(bool)}


def test_parameters_and_dropout(same):
    layer, x, key = FeedForward(dropout=0.5), X[0, 0], jax.random.key(0)
    same(lambda: layer.init(key, x))
    params = layer.init(key, x)
    same(lambda: layer.apply(params, x, rngs={"dropout": key}))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_scaled_latents_keep_their_type(dtype, wide_mode):
    vae = fdiff.AutoencoderKL(latents_mean=(0.0,) * 4, latents_std=(1.0,) * 4)
    for on in (True, False):
        with wide_mode(on):
            latents = jnp.zeros((1, 2, 2, 4), dtype)
            assert vae.scale(latents).dtype == vae.unscale(latents).dtype == dtype
