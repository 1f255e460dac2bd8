"""One way to run a plan: compiled, by hand, mapped, padded and differentiated, all the same."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdiff import sampling, schedulers
from fdiff.rows import ByRow
from fdiff.sampling import sample, steps

SHAPE = (2, 3, 3, 2)
PLAIN = {"clip_sample": False}


def network_of(params, x, t):
    return params * x + 0.1 * jnp.tanh(x) + 0.0001 * t


network = jax.tree_util.Partial(network_of, jnp.float32(0.6))


def noise(seed=0, shape=SHAPE):
    return jax.random.normal(jax.random.key(seed), shape)


PLANS = {
    "ddim": schedulers.DDIMScheduler(**PLAIN).plan(8),
    "ddpm": schedulers.DDPMScheduler(**PLAIN).plan(8),
    "dpm": schedulers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++").plan(8),
    "unipc": schedulers.UniPCMultistepScheduler(thresholding=True, sample_max_value=2.0).plan(8),
    "euler": schedulers.EulerAncestralDiscreteScheduler().plan(8),
}
PLANS = {name: plan.pad(slots=4) for name, plan in PLANS.items()}  # so that one compilation serves them all
each = pytest.mark.parametrize("name", PLANS)


def by_hand(plan, x, key):
    """The run with `init` and `step` alone, uncompiled."""
    state = sampling.init(plan, x)
    for i in range(len(plan)):
        row = plan[i]
        fresh = sampling.draw(key, i, x.shape)
        state = sampling.step(row, state, network(row.c_in * state.x, row.t), fresh)
    return state.x


def test_compiled_is_eager():
    plan, x, key = PLANS["dpm"], noise(), jax.random.key(3)
    np.testing.assert_allclose(sample(network, plan, x, key), by_hand(plan, x, key), rtol=1e-5, atol=1e-5)


@each
def test_compiled_is_the_generator(name):
    plan, x, key = PLANS[name], noise(), jax.random.key(3)
    whole = sample(network, plan, x, key)
    run = list(steps(network, plan, x, key))
    assert len(run) == len(steps(network, plan, x, key)) == len(plan)
    np.testing.assert_allclose(whole, run[-1][0].x, rtol=1e-6, atol=1e-6)
    assert run[-1][1].shape == SHAPE and int(run[-1][0].done) == len(plan)


@each
def test_given_noise_takes_the_place_of_a_key(name):
    plan, x, key = PLANS[name], noise(), jax.random.key(3)
    drawn = jnp.stack([sampling.draw(key, i, SHAPE) for i in range(len(plan))])
    np.testing.assert_allclose(sample(network, plan, x, noise=drawn), sample(network, plan, x, key), atol=1e-6)


def test_mapped_over_keys_is_a_loop():
    keys = jax.random.split(jax.random.key(1), 3)
    mapped = jax.vmap(lambda key: sample(network, PLANS["ddpm"], noise(), key))(keys)
    for one, key in zip(mapped, keys, strict=True):
        np.testing.assert_allclose(one, sample(network, PLANS["ddpm"], noise(), key), rtol=1e-5, atol=1e-5)


def test_mapped_over_plans_is_a_loop():
    plans = [plan.pad(rows=10) for plan in PLANS.values()]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *plans)
    key = jax.random.key(2)
    mapped = jax.vmap(lambda plan: sample(network, plan, noise() * plan.start, key))(stacked)
    for one, plan in zip(mapped, PLANS.values(), strict=True):
        alone = sample(network, plan, noise() * plan.start, key)
        np.testing.assert_allclose(one, alone, rtol=1e-4, atol=1e-4 * float(jnp.abs(alone).max()))


def test_padding_calls_no_network_and_changes_nothing():
    calls = []

    def counted(x, t):
        jax.debug.callback(lambda t: calls.append(float(t)), t)
        return network(x, t)

    plan = PLANS["dpm"].pad(rows=40, slots=5)
    padded = sample(counted, plan, noise(), jax.random.key(3))
    jax.effects_barrier()
    assert sorted(calls) == sorted(PLANS["dpm"].t.tolist())
    np.testing.assert_allclose(padded, sample(network, PLANS["dpm"], noise(), jax.random.key(3)), rtol=1e-6)


def test_one_trace_serves_all_schedulers_and_step_counts():
    traces = []

    def traced(params, x, t):
        traces.append(1)
        return network_of(params, x, t)

    key, first = jax.random.key(0), None
    for plan in PLANS.values():
        for n in (1, 5, 8):
            for params in (0.3, 0.6):
                bound = jax.tree_util.Partial(traced, jnp.float32(params))
                out = sample(bound, plan[:n].pad(rows=16), noise(), key)
                first = first or len(traces)
                assert np.isfinite(out).all()
    assert len(traces) == first


def test_gradients_of_x_params_and_coefficients_are_right():
    plan, drawn = PLANS["dpm"].map(jnp.asarray), noise(5, (8, *SHAPE))
    parts = {"params": jnp.float32(0.6), "x": noise(), "from_x0": plan.from_x0, "carry": plan.carry,
             "x0_of": plan.x0_of, "eps_of": plan.eps_of, "from_noise": plan.from_noise, "c_in": plan.c_in}

    @jax.jit
    def loss(params, x, **coefficients):
        bound = jax.tree_util.Partial(network_of, params)
        return jnp.mean(sample(bound, dataclasses.replace(plan, **coefficients), x, noise=drawn) ** 2)

    gradients = jax.jit(jax.grad(lambda parts: loss(**parts)))(parts)
    for name, value in parts.items():
        direction = jax.random.normal(jax.random.key(7), value.shape) * 0.002
        ahead, behind = (loss(**{**parts, name: value + sign * direction}) for sign in (1, -1))
        along = float(jnp.sum(gradients[name] * direction))
        assert along == pytest.approx(float(ahead - behind) / 2, rel=0.02, abs=1e-5), name


@each
def test_gradients_through_whole_plans_are_finite(name):
    gradient = plan_gradient(PLANS[name].pad(rows=10).map(jnp.asarray), noise(5, (10, *SHAPE)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@jax.jit
@jax.grad
def plan_gradient(plan, drawn):
    return jnp.mean(sample(network, plan, noise(), noise=drawn) ** 2)


def test_a_sample_with_its_own_key_does_not_see_the_batch():
    keys = jax.random.split(jax.random.key(4), 2)
    both = sample(network, PLANS["ddpm"], noise(), keys)
    alone = sample(network, PLANS["ddpm"], noise()[1:], keys[1:])
    np.testing.assert_allclose(both[1:], alone, rtol=1e-6, atol=1e-6)
    old_style = jax.vmap(jax.random.key_data)(keys)
    np.testing.assert_allclose(sample(network, PLANS["ddpm"], noise(), old_style), both, rtol=1e-6)


def test_a_missing_key_is_an_error_or_not_a_number():
    with pytest.raises(ValueError, match="this plan draws noise: pass a key"):
        sample(network, PLANS["ddpm"], noise())
    with pytest.raises(ValueError, match="this plan draws noise"):
        steps(network, PLANS["ddpm"], noise())
    run = jax.jit(lambda plan: sample(network, plan, noise()))
    assert np.isnan(run(PLANS["ddpm"])).all()
    assert np.isfinite(run(PLANS["ddim"])).all()


def scaled(params, scale, x, t):
    return scale * network_of(params, x, t)


SCALES = np.random.default_rng(0).uniform(0.2, 1, (8, 1, 1, 1)).astype(np.float32)


@pytest.mark.parametrize("name", ["dpm", "unipc"])
def test_a_network_is_told_what_holds_at_a_row(name):
    plan, x, key = PLANS[name], noise(), jax.random.key(3)
    which = np.array([0, 0, 3, 1, 1, 0, 7, 2])
    for told, scales in ((ByRow(SCALES), SCALES), (ByRow(SCALES, which), SCALES[which])):
        bound = jax.tree_util.Partial(scaled, 0.6, told)
        state = sampling.init(plan, x)
        for i in range(len(plan)):
            row = plan[i]
            out = scaled(0.6, scales[i], row.c_in * state.x, row.t)
            state = sampling.step(row, state, out, sampling.draw(key, i, x.shape))
        *_, (last, _) = steps(bound, plan, x, key)
        np.testing.assert_allclose(last.x, state.x, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(sample(bound, plan, x, key), state.x, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(sample(bound, plan.pad(rows=10), x, key), state.x, rtol=1e-5, atol=1e-5)
        assert told.shape == (1, 1, 1) and told.dtype == np.float32 and len(told) == 8
    with pytest.raises(ValueError, match="made for a plan of 8 rows and this one has 5"):
        sample(bound, plan[:5], x, key)


def test_what_holds_at_rows_is_mapped_differentiated_and_compiled_once():
    plan, x, traces = PLANS["ddim"], noise(), []

    def traced(params, scale, x, t):
        traces.append(1)
        return scaled(params, scale, x, t)

    def run(scales, plan=plan):
        return sample(jax.tree_util.Partial(traced, 0.6, ByRow(scales)), plan, x)

    both = jnp.stack([SCALES, SCALES[::-1]])
    for one, scales in zip(jax.vmap(run)(both), both, strict=True):
        np.testing.assert_allclose(one, run(scales), rtol=1e-5, atol=1e-5)
    slope = jax.grad(lambda scales: jnp.sum(run(scales)))(SCALES)
    shift = np.zeros_like(SCALES)
    shift[3] = 1e-2
    measured = (jnp.sum(run(SCALES + shift)) - jnp.sum(run(SCALES - shift))) / 2e-2
    np.testing.assert_allclose(slope[3].sum(), measured, rtol=2e-2)

    run(SCALES, plan.pad(rows=16))
    before = len(traces)
    for n in (1, 5):
        run(SCALES[:n], plan[:n].pad(rows=16))
    network = jax.tree_util.Partial(traced, 0.6, ByRow(SCALES[:5]))
    list(steps(network, plan[:5], x))
    assert len(traces) == before + 1
    list(steps(jax.tree_util.Partial(traced, 0.6, ByRow(SCALES)), plan, x))
    assert len(traces) == before + 1


def test_a_network_of_another_shape_is_one_sentence():
    with pytest.raises(ValueError, match="the network returned shape"):
        sample(lambda x, t: x[..., :1], PLANS["ddim"], noise())


def test_an_edit_after_each_row():
    def halve(x, i):
        return jnp.where(i == 3, x / 2, x)

    plan = PLANS["ddim"]
    edited = sample(network, plan, noise(), after=halve)
    half = sample(network, plan[:4], noise()) / 2
    np.testing.assert_allclose(edited, sample(network, plan[4:], half), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["dpm", "unipc"])
def test_a_gradient_that_computes_rows_again_is_equal_and_needs_less_memory(name):
    plan, wide = PLANS[name], jnp.asarray(np.random.default_rng(0).normal(size=(2, 4096)) / 64, jnp.float32)

    def perceptron(wide, x, t):
        return jnp.tanh(x @ wide) @ wide.T

    def loss(wide, x, remat):
        drawn = sample(jax.tree_util.Partial(perceptron, wide), plan, x, jax.random.key(0), remat=remat)
        return jnp.mean(drawn**2)

    both = [jax.jit(jax.grad(loss, (0, 1)), static_argnums=2).lower(wide, noise(), remat).compile() for remat in (0, 1)]
    for a, b in zip(*(jax.tree.leaves(gradient(wide, noise())) for gradient in both), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * float(jnp.abs(b).max()))
    kept, again = (gradient.memory_analysis().temp_size_in_bytes for gradient in both)
    assert again < 0.5 * kept
