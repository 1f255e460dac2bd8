"""What flows do besides plans: x that grows, tokens at levels of their own, networks of more than (x, t), stages."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdiff
from fdiff.schedulers import (
    FlowMapEulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchLCMScheduler,
    HeliosDMDScheduler,
    HeliosScheduler,
    PiflowScheduler,
)
from fdiff.schedulers.upscale import AXES, upscale

FACTORS = (1.0, 1.25, 2.0)


def network(x, t):
    return jnp.tanh(x) * 0.7 + t / 1000


def draws(*shapes):
    random = np.random.default_rng(0)
    return [random.standard_normal(shape).astype(np.float32) for shape in shapes]


def scale_wise(spatial, *, batch=2):
    sizes = [tuple(round(factor * side) for side in spatial) for factor in (1.0, *FACTORS, FACTORS[-1])]
    return draws(*[(batch, *size, 3) for size in sizes])


def test_scale_factors_enlarge_x_from_step_to_step():
    scheduler, (x, *noise) = FlowMatchLCMScheduler(scale_factors=FACTORS, upscale_mode="nearest"), scale_wise((4, 6))
    seen = []

    def constant(x, t):
        seen.append(x.shape)
        return jnp.ones_like(x)

    last = scheduler.sample(constant, x, num_inference_steps=4, noise=noise)
    assert seen == [(2, 4, 6, 3), (2, 4, 6, 3), (2, 5, 8, 3), (2, 8, 12, 3)]
    assert last.shape == (2, 8, 12, 3) and np.isfinite(last).all()
    before = scheduler.sample(jax.tree_util.Partial(network), x, jax.random.key(0), num_inference_steps=4)
    again = scheduler.sample(jax.tree_util.Partial(network), x, jax.random.key(0), num_inference_steps=4)
    assert np.array_equal(before, again)


def test_without_scale_factors_the_loop_is_the_plan():
    scheduler, (x, *noise) = FlowMatchLCMScheduler(shift=3.0), draws((2, 4, 4, 3), *[(2, 4, 4, 3)] * 5)
    wanted = fdiff.sample(network, scheduler.plan(5), x, noise=np.stack(noise))
    np.testing.assert_allclose(scheduler.sample(network, x, num_inference_steps=5, noise=noise), wanted, atol=1e-6)


def test_a_scale_wise_run_of_less_strength_is_its_last_part():
    scheduler, (x, *noise) = FlowMatchLCMScheduler(scale_factors=(1.0, 1.0, 2.0)), scale_wise((4, 4))
    whole = scheduler.sample(network, x, num_inference_steps=4, noise=[x, x, noise[3], noise[3]])
    part = scheduler.sample(network, x, num_inference_steps=4, strength=0.5, noise=[noise[3]])
    plan = FlowMatchLCMScheduler().plan(4)
    begun = x
    for row in (plan[0], plan[1]):
        begun = row.from_x0[0] * fdiff.predict(row, begun, network(begun, row.t))[0] + row.from_noise[0] * x
    again = scheduler.sample(network, begun, num_inference_steps=4, strength=0.5, noise=[noise[3]])
    np.testing.assert_allclose(again, whole, atol=1e-5)
    assert part.shape == whole.shape == (2, 8, 8, 3)


WRONG = [
    (FACTORS, "nearest", 5, True, "scale_factors has 3 numbers for 5 steps"),
    (FACTORS, "cubic", 4, True, "upscale_mode is 'cubic'"),
    (FACTORS, "linear", 4, True, "'linear' is not for 2 spatial axes"),
    (FACTORS, "nearest", 4, False, "pass a key"),
]


@pytest.mark.parametrize(("factors", "mode", "n", "keyed", "message"), WRONG)
def test_a_wrong_scale_wise_run_is_one_sentence(factors, mode, n, keyed, message):
    scheduler = FlowMatchLCMScheduler(scale_factors=factors, upscale_mode=mode)
    with pytest.raises(ValueError, match=message):
        scheduler.sample(network, np.zeros((1, 4, 4, 3)), jax.random.key(0) if keyed else None, num_inference_steps=n)


@pytest.mark.parity
@pytest.mark.parametrize("old", [1, 5, 8, 13])
@pytest.mark.parametrize("mode", AXES)
def test_upscale_is_interpolate(mode, old):
    torch = pytest.importorskip("torch")
    axes = AXES[mode][-1]
    for new in (1, 4, 8, 11, 16, 29):
        (x,) = draws((2, *[old, 7, 3][:axes], 3))
        size = [new, 9, 5][:axes]
        wanted = torch.nn.functional.interpolate(torch.tensor(x).movedim(-1, 1), size=size, mode=mode).movedim(1, -1)
        # torch's places of pixels are float32
        np.testing.assert_allclose(upscale(jnp.asarray(x), size, mode), wanted, atol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize(("mode", "spatial"), [("bicubic", (8, 12)), ("bilinear", (5, 7)), ("nearest", (8, 8)),
                                               ("area", (6, 6)), ("trilinear", (3, 4, 5)), ("linear", (9,))])
def test_a_scale_wise_run_against_diffusers(mode, spatial, monkeypatch):
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    from diffusers.schedulers import scheduling_flow_match_lcm as theirs

    x, *noise = scale_wise(spatial)
    left = iter([torch.tensor(z).movedim(-1, 1) for z in noise])
    monkeypatch.setattr(theirs, "randn_tensor", lambda *_, **__: next(left))
    config = {"scale_factors": list(FACTORS), "upscale_mode": mode, "shift": 3.0}
    other = diffusers.FlowMatchLCMScheduler(**config)
    other.set_timesteps(4)
    now = torch.tensor(x).movedim(-1, 1)
    for t in other.timesteps:
        now = other.step(torch.tensor(np.asarray(network(now.numpy(), float(t)))), t, now).prev_sample
    ours = FlowMatchLCMScheduler.from_config(config).sample(network, x, num_inference_steps=4, noise=noise)
    np.testing.assert_allclose(ours, now.movedim(1, -1), atol=1e-5)


def test_known_tokens_stay_and_others_follow_the_run():
    scheduler, (x, out) = FlowMatchEulerDiscreteScheduler(shift=3.0), draws((2, 5, 3), (2, 5, 3))
    plan = scheduler.plan(6)
    t = np.full((2, 5), plan.t[2])
    t[:, 0] = 0
    stepped = jax.jit(scheduler.step_tokens)(out, t, x, plan)
    np.testing.assert_array_equal(stepped[:, 0], x[:, 0])
    np.testing.assert_allclose(stepped[:, 1:], (x + (plan.sigma[3] - plan.sigma[2]) * out)[:, 1:], atol=1e-6)
    with pytest.raises(ValueError, match="not with invert_sigmas"):
        FlowMatchEulerDiscreteScheduler(invert_sigmas=True).step_tokens(out, t, x, plan)
    with pytest.raises(ValueError, match="pass it to step_tokens"):
        FlowMatchEulerDiscreteScheduler(stochastic_sampling=True).step_tokens(out, t, x, plan)


@pytest.mark.parity
@pytest.mark.parametrize("stochastic", [False, True])
def test_tokens_against_diffusers(stochastic, monkeypatch):
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    from diffusers.schedulers import scheduling_flow_match_euler_discrete as theirs

    x, out, noise = draws((2, 7, 3), (2, 7, 3), (2, 7, 3))
    monkeypatch.setattr(theirs, "randn_tensor", lambda *_, **__: torch.tensor(noise))
    ours = FlowMatchEulerDiscreteScheduler(shift=2.0, stochastic_sampling=stochastic)
    other = diffusers.FlowMatchEulerDiscreteScheduler(shift=2.0, stochastic_sampling=stochastic)
    other.set_timesteps(8)
    plan = ours.plan(8)
    t = other.timesteps.numpy()[[[0, 1, 2, 3, 4, 5, 6], [7, 7, 2, 2, 0, 0, 5]]] * np.float32(0.999)
    t[1, :2] = 0, 990
    # diffusers takes -out in a step of Euler's and out in a stochastic one
    given = torch.tensor(out if stochastic else -out)
    wanted = other.step(given, other.timesteps[0], torch.tensor(x), per_token_timesteps=torch.tensor(t)).prev_sample
    np.testing.assert_allclose(ours.step_tokens(out, t, x, plan, noise if stochastic else None), wanted, atol=1e-5)


MIX = np.random.default_rng(1).standard_normal((3, 30)).astype(np.float32) * 0.4


@jax.tree_util.Partial
def policy(x, t):
    return jnp.tanh(x @ MIX + t / 1000)


@pytest.mark.parametrize("n", [1, 3])
def test_equal_velocities_are_one(n):
    scheduler, (x,) = PiflowScheduler(n_grid=4), draws((2, 5, 3))
    plan = scheduler.plan(n)
    same = scheduler.adapt(lambda x, t: jnp.tile(network(x, t), 4), plan)
    np.testing.assert_allclose(fdiff.sample(same, plan, x), fdiff.sample(network, plan, x), atol=1e-5)
    padded = plan.pad(rows=12, slots=3)
    again = fdiff.sample(scheduler.adapt(lambda x, t: jnp.tile(network(x, t), 4), padded), padded, x)
    np.testing.assert_allclose(again, fdiff.sample(same, plan, x), atol=1e-6)
    with pytest.raises(ValueError, match="n_grid = 4 times its channels"):
        fdiff.sample(scheduler.adapt(network, plan), plan, x)


@pytest.mark.parity
@pytest.mark.parametrize("config", [{}, {"shift": 1.0, "num_policy_substeps": 20, "final_step_size_scale": 1.0}])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_policy_against_diffusers(n, config):
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    ours, other, (x,) = PiflowScheduler(**config), diffusers.PiflowScheduler(**config), draws((2, 5, 3))
    other.set_timesteps(n)
    now = torch.tensor(x)
    for t in other.timesteps:
        now = other.step(torch.tensor(np.asarray(policy(now.numpy(), float(t)))), t, now).prev_sample
    plan = ours.plan(n)
    # diffusers sums up to 128 small steps in float32
    np.testing.assert_allclose(fdiff.sample(ours.adapt(policy, plan), plan, x), now, atol=5e-5)


def flow_map(x, t, r):
    """The mean velocity from t to r of dx / dsigma = x, in T = 1000."""
    return x * jnp.expm1((r - t) / 1000) / ((r - t) / 1000)


@pytest.mark.parametrize("n", [1, 4, 7])
def test_a_perfect_flow_map_is_exact_at_any_number_of_steps(n):
    scheduler, (x,) = FlowMapEulerDiscreteScheduler(shift=5.0), draws((2, 5, 3))
    plan = scheduler.plan(n)
    last = fdiff.sample(scheduler.adapt(flow_map, plan), plan, x)
    np.testing.assert_allclose(last, x * np.exp(-1), rtol=1e-5)


@pytest.mark.parity
def test_a_flow_map_against_diffusers():
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    ours, (x,) = FlowMapEulerDiscreteScheduler(shift=3.0), draws((2, 5, 3))
    other = diffusers.FlowMapEulerDiscreteScheduler(shift=3.0)
    other.set_timesteps(6)
    now, times = torch.tensor(x), [*other.timesteps.tolist(), 0.0]
    for t, r in itertools.pairwise(times):
        now = other.step(torch.tensor(np.asarray(network(now.numpy(), t) + r / 500)), t, now, r).prev_sample
    plan = ours.plan(6)
    adapted = ours.adapt(lambda x, t, r: network(x, t) + r / 500, plan)
    np.testing.assert_allclose(fdiff.sample(adapted, plan, x), now, atol=1e-5)


@pytest.mark.parametrize("cls", [HeliosScheduler, HeliosDMDScheduler])
def test_a_stage_is_renoised_to_where_it_begins(cls):
    """The noise of an enlarged pixel is one number in four places; with what is added it is white, and of the flow."""
    scheduler = cls(stages=2, stage_range=(0, 0.5, 1))
    a, b = scheduler.renoising(1)
    sigma = 0.5 * (1 - 1 / 1000)  # the flow's, where the second stage begins
    added = (1 + scheduler.gamma) * np.eye(4) - scheduler.gamma
    covariance = (a * sigma) ** 2 * np.ones((4, 4)) + b**2 * added
    np.testing.assert_allclose(covariance, (1 - a * (1 - sigma)) ** 2 * np.eye(4), atol=1e-12)
    with pytest.raises(ValueError, match="stage_index is 0; what is renoised begins at stage 1 to 1"):
        scheduler.renoising(0)
    with pytest.raises(ValueError, match="stage_index is 2; with these stages it must be 0 to 1"):
        scheduler.plan(4, stage_index=2)


@pytest.mark.parity
def test_renoising_is_that_of_the_pipeline():
    diffusers = pytest.importorskip("diffusers")
    config = {"shift": 2.0, "gamma": 0.25}
    ours, other = HeliosScheduler(**config), diffusers.HeliosScheduler(**config)
    for stage in (1, 2):
        a, b = ours.renoising(stage)
        sigma = other.ori_start_sigmas[stage]  # what its pipeline reads
        np.testing.assert_allclose(1 - a * (1 - sigma), other.start_sigmas[stage], rtol=1e-12)
        np.testing.assert_allclose(b, a * sigma / np.sqrt(0.25), rtol=1e-12)
