"""Image to image, options that contradict each other, and levels, of the samplers in log-SNR and of DDPM's kind."""

import jax
import numpy as np
import pytest

import fdiff.schedulers
from fdiff import sampling
from tests.schedulers.runs import diffusers_class, draws, network

SIGMA_MIN = {"final_sigmas_type": "sigma_min"}
PARTS = [
    ("DDPMScheduler", {}),
    ("DDIMScheduler", {"timestep_spacing": "trailing"}),
    ("DPMSolverMultistepScheduler", {"solver_order": 3}),
    ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    ("DPMSolverSinglestepScheduler", {"solver_order": 3}),
    ("DEISMultistepScheduler", {}),
    ("UniPCMultistepScheduler", {"solver_order": 3, "disable_corrector": [9, 12]}),
    ("SASolverScheduler", {}),
    ("LCMScheduler", {}),
    ("TCDScheduler", {}),
    ("UnCLIPScheduler", {"clip_sample_range": 3.0}),
]


@pytest.mark.parametrize(("name", "config"), PARTS)
def test_strength_keeps_the_last_steps(name, config):
    scheduler = getattr(fdiff.schedulers, name).from_config(config)
    whole, part = scheduler.plan(20), scheduler.plan(20, strength=0.6)
    assert len(part) == 12
    for leaf in ("t", "sigma", "alpha"):
        np.testing.assert_array_equal(getattr(part, leaf), getattr(whole, leaf)[-12:])
    assert not np.any(part.carry[0, 0, 1:]), "the first row has no memory to use"


@pytest.mark.parity
@pytest.mark.parametrize(("name", "config"), PARTS[1:-1])
def test_strength_against_diffusers(name, config):
    torch = pytest.importorskip("torch")
    other = diffusers_class(name).from_config(config)
    other.set_timesteps(20)
    if hasattr(other, "set_begin_index"):
        other.set_begin_index(8)
    plan = getattr(fdiff.schedulers, name).from_config(config).plan(20, strength=0.6)
    x0, fresh, *_ = draws(20)
    x = state = None
    with pytest.MonkeyPatch.context() as patch:
        module = __import__(type(other).__module__, fromlist=["_"])
        patch.setattr(module, "randn_tensor", lambda *a, **k: torch.tensor(fresh), raising=False)
        for i, t in enumerate(other.timesteps[8:]):
            if x is None:
                x, state = torch.tensor(x0), sampling.init(plan, x0)
            options = {"eta": 0.0} if name == "TCDScheduler" else {}  # as diffusers' pipelines call it
            x = other.step(torch.tensor(network(x.numpy())).float(), t, x, **options).prev_sample
            out = network(np.asarray(state.x, np.float64)).astype(np.float32)
            state = sampling.step(plan[i], state, out, fresh)
    np.testing.assert_allclose(plan.t, other.timesteps[8:])
    np.testing.assert_allclose(state.x, x, atol=2e-5 * float(x.abs().max()))


def test_an_inversion_of_less_strength_stops_earlier():
    for name in ("DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler"):
        scheduler = getattr(fdiff.schedulers, name)()
        whole, part = scheduler.plan(20), scheduler.plan(20, strength=0.6)
        np.testing.assert_array_equal(part.t, whole.t[:12])
        assert np.all(np.diff(whole.sigma) > 0)


def test_inverted_flow_sigmas_rise():
    options = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    plan = fdiff.schedulers.DPMSolverMultistepInverseScheduler(**options).plan(10)
    assert np.all(np.diff(plan.sigma) > 0) and np.all(np.diff(plan.t) > 0)


WRONG = [
    ("DDPM", {}, {"n": 1001}, "more than the 1000 timesteps"),
    ("DDPM", {"steps_offset": 1}, {"n": 1000}, "steps_offset 1 lays timesteps outside 0 to 999"),
    ("DDPM", {}, {"timesteps": [5, 9]}, "timesteps must fall"),
    ("DDPM", {}, {"n": 5, "timesteps": [9, 5]}, "not num_inference_steps and timesteps"),
    ("DDPM", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, {}, "cannot start from alpha = 0"),
    ("DDPM", {"beta_schedule": "odd"}, {}, "beta_schedule is 'odd'"),
    ("DDPM", {"timestep_spacing": "odd"}, {}, "timestep_spacing is 'odd'"),
    ("PNDM", {}, {"n": 3}, "3 steps are fewer than the 4"),
    ("PNDM", {"skip_prk_steps": True}, {"n": 5, "strength": 0.1}, "leaves none of 5 steps"),
    ("DPMSolverMultistep", {"solver_order": 4}, {}, "solver_order is 4"),
    ("DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver", "solver_order": 3, **SIGMA_MIN}, {}, "order is 3"),
    ("DPMSolverMultistep", {"algorithm_type": "dpmsolver"}, {}, "final_sigmas_type zero contradicts"),
    ("DPMSolverMultistep", {"algorithm_type": "odd"}, {}, "algorithm_type is 'odd'; it can be"),
    ("DPMSolverMultistep", {"solver_type": "odd"}, {}, "it can be midpoint or heun"),
    ("DPMSolverMultistep", {"final_sigmas_type": "odd"}, {}, "zero or sigma_min"),
    ("DPMSolverMultistep", {"use_karras_sigmas": True, "use_lu_lambdas": True}, {}, "karras and lu sigmas contradict"),
    ("DPMSolverMultistep", {"use_flow_sigmas": True, "use_beta_sigmas": True}, {}, "beta and flow sigmas contradict"),
    ("DPMSolverMultistep", {"use_lu_lambdas": True}, {"timesteps": [9, 3]}, "switch use_lu_lambdas off"),
    ("DPMSolverMultistep", {}, {"mu": 0.5}, "mu shifts flow sigmas"),
    ("DPMSolverMultistep", {"use_flow_sigmas": True}, {"mu": 0.5}, "mu needs use_dynamic_shifting"),
    ("DPMSolverMultistep", {"prediction_type": "flow_prediction"}, {}, "needs use_flow_sigmas"),
    ("DPMSolverMultistep", {}, {"n": 1.5}, "must be a whole number"),
    ("DPMSolverSinglestep", {"algorithm_type": "sde-dpmsolver"}, {}, "algorithm_type is 'sde-dpmsolver'"),
    ("DPMSolverSinglestep", {"algorithm_type": "dpmsolver"}, {}, "final_sigmas_type zero contradicts"),
    ("DPMSolverSinglestep", {"solver_order": 4}, {}, "solver_order is 4"),
    ("DPMSolverMultistepInverse", {"algorithm_type": "sde-dpmsolver++"}, {}, "cannot be inverted"),
    ("DDIMInverse", {"timestep_spacing": "linspace"}, {}, "it can be leading or trailing"),
    ("DEISMultistep", {"algorithm_type": "odd"}, {}, "algorithm_type is 'odd'"),
    ("DEISMultistep", {"solver_order": 0}, {}, "solver_order is 0"),
    ("SASolver", {"tau_func": "odd"}, {}, "pass tau to plan"),
    ("SASolver", {"predictor_order": 5}, {}, "predictor_order is 5"),
    ("UnCLIP", {"beta_schedule": "linear"}, {}, "it can be squaredcos_cap_v2"),
    ("UnCLIP", {"variance_type": "fixed_large"}, {}, "fixed_small_log or learned_range"),
    ("DDPMWuerstchen", {}, {"timesteps": [0.5, 0.9]}, "fall from 1"),
    ("RePaint", {}, {"jump_length": 0}, "1 or more"),
]


@pytest.mark.parametrize(("name", "config", "options", "message"), WRONG)
def test_a_contradiction_is_one_sentence(name, config, options, message):
    options = {"n": None if "timesteps" in options else 10, **options}
    with pytest.raises(ValueError, match=message) as error:
        getattr(fdiff.schedulers, f"{name}Scheduler")(**config).plan(options.pop("n"), **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("algorithm", ["dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("layout", ["use_karras_sigmas", "use_exponential_sigmas", "use_lu_lambdas"])
def test_a_last_step_that_goes_nowhere_changes_nothing(layout, order, algorithm):
    options = {layout: True, "algorithm_type": algorithm, "solver_order": order, "lower_order_final": False}
    options |= SIGMA_MIN
    if layout != "use_lu_lambdas" and algorithm != "sde-dpmsolver":  # whose last stage goes from the step's origin
        assert len(fdiff.schedulers.DPMSolverSinglestepScheduler(**options).plan(16)) == 16
    if (algorithm, order) != ("sde-dpmsolver", 3):
        last = fdiff.schedulers.DPMSolverMultistepScheduler(**options).plan(16)[15]
        np.testing.assert_allclose(last.carry[0, 0], 1, atol=1e-6)
        for leaf in (last.carry[0, 1:], last.from_x0[0], last.from_eps[0], last.from_noise[0]):
            np.testing.assert_allclose(leaf, 0, atol=1e-6)


def test_tau_is_a_number_or_a_function():
    scheduler = fdiff.schedulers.SASolverScheduler()
    assert not np.any(scheduler.plan(10, tau=0).from_noise)
    assert np.all(scheduler.plan(10, tau=0.5).from_noise[:, 0] > 0)
    half = scheduler.plan(10, tau=lambda t: float(t > 500))
    np.testing.assert_array_equal(half.from_noise[:, 0] > 0, half.t > 500)
    np.testing.assert_array_equal(scheduler.plan(10).from_noise[:, 0] > 0, (half.t >= 200) & (half.t <= 800))


@pytest.mark.parity
@pytest.mark.parametrize(("name", "steps"), [
    ("DDPMScheduler", None), ("DDIMScheduler", None), ("PNDMScheduler", None), ("DPMSolverMultistepScheduler", 20),
    ("DPMSolverSinglestepScheduler", 20), ("DEISMultistepScheduler", 20), ("UniPCMultistepScheduler", 20),
    ("SASolverScheduler", 20), ("DPMSolverMultistepInverseScheduler", 20), ("UnCLIPScheduler", None),
    ("CogVideoXDDIMScheduler", None), ("CogVideoXDPMScheduler", None), ("DDPMWuerstchenScheduler", 20),
])
def test_noise_is_added_and_velocity_taken_as_by_diffusers(name, steps):
    torch = pytest.importorskip("torch")
    other, ours = diffusers_class(name)(), getattr(fdiff.schedulers, name)()
    if steps:
        other.set_timesteps(steps)
    t = other.timesteps[[3, -4]] if steps else torch.tensor([900, 30])
    x0, noise = draws(1)
    wanted = other.add_noise(torch.tensor(x0), torch.tensor(noise), t)
    np.testing.assert_allclose(ours.add_noise(x0, noise, t.numpy()), wanted, atol=2e-5)
    if hasattr(other, "get_velocity"):
        wanted = other.get_velocity(torch.tensor(x0), torch.tensor(noise), t)
        np.testing.assert_allclose(ours.velocity(x0, noise, t.numpy()), wanted, atol=2e-5)


@pytest.mark.parametrize("flow", [False, True])
def test_levels_are_those_of_the_plan(flow):
    options = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"} if flow else {}
    scheduler = fdiff.schedulers.DPMSolverMultistepScheduler(**options)
    plan = scheduler.plan(10)
    alpha, sigma = scheduler.levels(plan.t)
    tolerance = 1e-3 if flow else 1e-6  # along a flow the network is told sigma without its last digits
    np.testing.assert_allclose(alpha, plan.alpha, atol=tolerance)
    np.testing.assert_allclose(sigma, plan.sigma, atol=tolerance)


def test_repaint_keeps_what_is_known():
    scheduler = fdiff.schedulers.RePaintScheduler(num_train_timesteps=40, eta=1.0)
    plan = scheduler.plan(20, jump_length=4, jump_n_sample=3)
    assert 0 < np.sum(plan.c_in == 0) < len(plan)
    known, noise = np.float32(np.linspace(-1, 1, 72)).reshape(2, 3, 3, 4), draws(1)[1]
    mask = np.zeros((3, 3, 1), np.float32)
    mask[1] = 1
    key = jax.random.key(0)
    after = fdiff.schedulers.keep_known(plan, known, mask, key)
    x = sampling.sample(lambda x, t: 0.9 * x, plan, noise, key, after=after)
    np.testing.assert_allclose(x[:, 1], known[:, 1], atol=1e-6)
    assert np.abs(x - known)[:, 0].max() > 0.1
    with pytest.raises(ValueError, match="the known part needs noise"):
        fdiff.schedulers.keep_known(plan, known, mask)
