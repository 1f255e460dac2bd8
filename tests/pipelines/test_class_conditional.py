"""Images of a class: guidance, names of classes, one compilation for all of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdiff
from fdiff import sampling


def test_host_class_is_the_pure_function(conditional):
    pipe, params = conditional
    key, labels = jax.random.key(1), jnp.array([0, 2])
    options = {"guidance_scale": 3.0, "num_inference_steps": 4, "output_type": "array", "progress": False}
    host = pipe(params, ["cat", 2], key=key, **options)
    pure = fdiff.class_conditional(pipe.unet, params, pipe.scheduler.plan(4), labels, key, 3.0)
    np.testing.assert_allclose(host.images, pure, atol=2e-5)


def test_guidance_is_a_difference_of_two_classes(conditional):
    pipe, params = conditional
    run = pipe.steps(params, ["dog"], key=jax.random.key(1), guidance_scale=2.5, num_inference_steps=1)
    x, t = run.x, run.plan.t[0]
    of, none = (pipe.unet.apply({"params": params["unet"]}, x, t, jnp.array([k])) for k in (1, 3))
    np.testing.assert_allclose(run.network(x, t), none + 2.5 * (of - none), atol=1e-5)


def test_classes_are_checked(conditional):
    pipe, params = conditional
    for label in ("bird", 3, -1, "²", 1.5, None):
        with pytest.raises(ValueError, match="no class"):
            pipe(params, [label], key=jax.random.key(0), progress=False)
    with pytest.raises(ValueError, match="empty"):
        pipe(params, [], key=jax.random.key(0), progress=False)
    for labels in (range(2), {0, 1}, (k for k in (0, 1)), np.array([0, 1])):
        assert pipe.steps(params, labels, key=jax.random.key(0)).x.shape[0] == 2
    assert pipe.steps(params, jnp.int32(1), key=jax.random.key(0), guidance_scale=jnp.bfloat16(2)).x.shape[0] == 1
    for options in ({"num_inference_steps": 0}, {"guidance_scale": "7"}, {"guidance_scale": np.inf}, {"key": None}):
        with pytest.raises(ValueError, match=next(iter(options))):
            pipe.steps(params, "cat", **{"key": jax.random.key(0), **options})


def test_nothing_is_compiled_twice(conditional):
    pipe, params = conditional

    def draw(**options):
        pipe_now = pipe.replace(scheduler=options.pop("scheduler", pipe.scheduler))
        pipe_now(params, [0, 1], progress=False, **options)

    draw(key=jax.random.key(0), num_inference_steps=3)
    before = sampling._advance._cache_size()
    draw(key=jax.random.key(7), num_inference_steps=5, guidance_scale=2.0)
    draw(key=jax.random.key(7), num_inference_steps=2, scheduler=fdiff.DDPMScheduler())
    draw(key=jax.random.key(7), num_inference_steps=2, scheduler=fdiff.EulerDiscreteScheduler())
    assert sampling._advance._cache_size() == before
