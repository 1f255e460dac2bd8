"""Guiders are networks made of networks: their formulas, and that scales and conditions are data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from fdiff import guidance
from fdiff.rows import ByRow
from fdiff.sampling import sample
from fdiff.schedulers import DDIMScheduler

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


@pytest.mark.parametrize("on", [True, False, np.float32(1), np.float32(0)])
def test_part(on):
    guided = guidance.classifier_free(Partial(network, 2.0), CONDITION, NEGATIVE, 3.0)
    plain = guidance.given(Partial(network, 2.0), CONDITION)
    got = guidance.part(guided, plain, on)(X, 0.5)
    np.testing.assert_allclose(got, (guided if on else plain)(X, 0.5), rtol=1e-5)


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


def test_composed_is_the_weighted_sum():
    conditions, weights = [CONDITION, NEGATIVE, 2 * CONDITION], [2.0, -1.5, np.array([0.5, 0.1, 0.2])]
    guided = guidance.composed(Partial(network, 2.0), conditions, weights)(X, 0.5)
    parts = zip(conditions, weights, strict=True)
    wanted = sum(np.reshape(w, (-1, 1, 1, 1)) * network(2.0, X, 0.5, c) for c, w in parts)
    np.testing.assert_allclose(guided, wanted, rtol=1e-5)


def shifted(weight, x, t, condition):
    """A network whose predictions under two conditions are not parallel."""
    return weight * x + jnp.sin(3 * x + condition[:, None, None, None]) + t


POSITIVE, WITHOUT = (np.asarray(shifted(2.0, X, 0.5, c)) for c in (CONDITION, NEGATIVE))


def test_adaptive_projected_takes_the_parallel_part_away():
    guide = guidance.adaptive_projected
    guided = np.asarray(guide(Partial(shifted, 2.0), CONDITION, NEGATIVE, 4.0, eta=0.3, limit=0.5)(X, 0.5))
    for i in range(len(X)):
        difference = POSITIVE[i] - WITHOUT[i]
        difference = difference * min(1, 0.5 / np.linalg.norm(difference))
        parallel = np.vdot(difference, POSITIVE[i]) / np.vdot(POSITIVE[i], POSITIVE[i]) * POSITIVE[i]
        wanted = POSITIVE[i] + 3 * (difference - parallel + 0.3 * parallel)
        np.testing.assert_allclose(guided[i], wanted, rtol=1e-5, atol=1e-6)
    whole = guide(Partial(shifted, 2.0), CONDITION, NEGATIVE, 4.0, eta=1.0)(X, 0.5)
    np.testing.assert_allclose(whole, WITHOUT + 4 * (POSITIVE - WITHOUT), rtol=1e-4, atol=1e-5)


def test_norm_limited_is_no_longer_than_a_multiple_of_the_positive():
    """Each sample by itself."""
    whole = WITHOUT + 4 * (POSITIVE - WITHOUT)
    long, most = (np.sqrt(np.sum(one**2, (1, 2, 3), keepdims=True)) for one in (whole, POSITIVE))
    for limit in (0.5, np.array([0.3, 1e6][: len(X)] + [1.0] * (len(X) - 2))):
        guided = guidance.norm_limited(Partial(shifted, 2.0), CONDITION, NEGATIVE, 4.0, limit=limit)(X, 0.5)
        column = np.reshape(limit, (-1, 1, 1, 1))
        np.testing.assert_allclose(guided, whole * np.minimum(1, column * most / long), rtol=1e-4, atol=1e-5)


def test_as_long_takes_the_lengths_of_parts_from_the_positive():
    guided = guidance.as_long(Partial(shifted, 2.0), CONDITION, NEGATIVE, 4.0, length=rows)(X, 0.5)
    whole = WITHOUT + 4 * (POSITIVE - WITHOUT)
    np.testing.assert_allclose(guided, whole * rows(POSITIVE) / rows(whole), rtol=1e-4, atol=1e-5)


def rows(x):
    return jnp.linalg.norm(x, axis=2, keepdims=True)


def test_zero_star_scales_the_negative_and_leaves_out_the_start():
    guided = guidance.zero_star(Partial(shifted, 2.0), CONDITION, NEGATIVE, 4.0, zero_from=0.8)
    share = np.sum(POSITIVE * WITHOUT, (1, 2, 3)) / np.sum(WITHOUT**2, (1, 2, 3))
    without = share[:, None, None, None] * WITHOUT
    np.testing.assert_allclose(guided(X, 0.5), without + 4 * (POSITIVE - without), rtol=1e-4, atol=1e-5)
    assert not np.any(guided(X, jnp.float32(0.9)))


@pytest.mark.parametrize("negative", [None, NEGATIVE])
def test_perturbed_adds_a_term(negative):
    guided = guidance.perturbed(
        Partial(shifted, 2.0), CONDITION, negative, 4.0, perturb=lambda c, on: c + 5.0 * on, perturbed_scale=2.0
    )
    disturbed = shifted(2.0, X, 0.5, CONDITION + 5.0)
    wanted = POSITIVE + 2 * (POSITIVE - disturbed) + (0 if negative is None else 3 * (POSITIVE - WITHOUT))
    np.testing.assert_allclose(guided(X, 0.5), wanted, rtol=1e-4, atol=1e-5)


def test_auto_guidance_leaves_the_weak_network():
    guided = guidance.auto(Partial(network, 2.0), Partial(network, 1.5), CONDITION, 2.5)(X, 0.5)
    weak, strong = (network(w, X, 0.5, CONDITION) for w in (1.5, 2.0))
    np.testing.assert_allclose(guided, weak + 2.5 * (strong - weak), rtol=1e-5)


@pytest.mark.parity
def test_guiders_of_diffusers():
    guiders = pytest.importorskip("diffusers.guiders")
    import torch

    positive, without = (torch.from_numpy(x.copy()) for x in (POSITIVE, WITHOUT))
    disturbed = torch.from_numpy(np.array(shifted(2.0, X, 0.5, CONDITION + 5.0)))
    base = Partial(shifted, 2.0)
    ours = {
        "projected": guidance.adaptive_projected(base, CONDITION, NEGATIVE, 4.0, eta=0.3, limit=0.5, rescale=0.4),
        "zero": guidance.zero_star(base, CONDITION, NEGATIVE, 4.0, rescale=0.4),
        "perturbed": guidance.perturbed(
            base, CONDITION, NEGATIVE, 4.0, perturb=lambda c, on: c + 5.0 * on, perturbed_scale=2.0, rescale=0.4
        ),
    }
    theirs = {
        "projected": guiders.AdaptiveProjectedGuidance(
            3.0, eta=0.3, adaptive_projected_guidance_rescale=0.5, use_original_formulation=True, guidance_rescale=0.4
        ),
        "zero": guiders.ClassifierFreeZeroStarGuidance(4.0, zero_init_steps=0, guidance_rescale=0.4),
        "perturbed": guiders.SkipLayerGuidance(
            4.0, skip_layer_guidance_scale=2.0, skip_layer_guidance_layers=[0], skip_layer_guidance_start=0.0,
            skip_layer_guidance_stop=1.0, guidance_rescale=0.4,
        ),
    }  # fmt: skip
    for name, guided in ours.items():
        theirs[name].set_state(step=1, num_inference_steps=10, timestep=torch.tensor(0))
        predictions = (positive, without, disturbed) if name == "perturbed" else (positive, without)
        wanted = theirs[name].forward(*predictions).pred.numpy()
        np.testing.assert_allclose(guided(X, 0.5), wanted, rtol=1e-4, atol=1e-4)


def test_a_row_that_is_not_guided_costs_one_prediction():
    seen = []

    def counted(x, t, condition):
        jax.debug.callback(lambda: seen.append(len(x)))
        return x * condition[:, None, None, None]

    plan, on = DDIMScheduler().plan(4), ByRow(np.array([0, 1, 1, 0]))
    asked = Partial(counted)
    guided, plain = guidance.classifier_free(asked, CONDITION, NEGATIVE, 3.0), guidance.given(asked, CONDITION)
    sample(guidance.part(guided, plain, on), plan, X).block_until_ready()
    jax.effects_barrier()
    assert sorted(seen) == [3, 3, 6, 6]
