"""What diffusers cannot be asked: variance types that it gets wrong, and what a predicted variance does."""

import jax.numpy as jnp
import numpy as np
import pytest

from fdiff import sampling
from fdiff.schedulers import DDPMScheduler

SHAPE = (1, 2, 2, 3)


def noise_of(scheduler, out_channels, variance=0.0):
    """What one unit of noise adds to x in the first of ten steps."""
    plan = scheduler.plan(10)
    x = jnp.zeros(SHAPE)
    out = jnp.concatenate([x, jnp.full_like(x, variance)], -1) if out_channels == 2 else x
    state = sampling.init(plan, x)
    one, none = (sampling.step(plan[0], state, out, noise).x for noise in (jnp.ones(SHAPE), 0.0))
    return float((one - none).mean())


def test_fixed_large_log_is_fixed_large():
    kinds = ("fixed_small", "fixed_large", "fixed_large_log")
    noise = [noise_of(DDPMScheduler(variance_type=kind), 1) for kind in kinds]
    assert noise[2] == noise[1] > noise[0]


def test_a_learned_variance_is_the_second_half_of_the_channels():
    learned = DDPMScheduler(variance_type="learned")
    assert noise_of(learned, 2, 0.09) == pytest.approx(0.3, rel=1e-5)
    assert noise_of(learned, 2, -1.0) == 0, "below zero counts as zero"


def test_learned_range_lies_between_small_and_large():
    small, large = (noise_of(DDPMScheduler(variance_type=f"fixed_{kind}"), 1) for kind in ("small", "large"))
    learned = DDPMScheduler(variance_type="learned_range")
    assert noise_of(learned, 2, -1.0) == pytest.approx(small, rel=1e-5)
    assert noise_of(learned, 2, 1.0) == pytest.approx(large, rel=1e-5)
    assert noise_of(learned, 2, 0.0) == pytest.approx(np.sqrt(small * large), rel=1e-5)
    assert noise_of(learned, 1) == pytest.approx(small, rel=1e-5), "a network that predicts no variance"


def test_unknown_variance_type():
    with pytest.raises(ValueError, match="variance_type is 'huge'"):
        DDPMScheduler(variance_type="huge").plan(3)
