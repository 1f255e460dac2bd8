"""Image to image, options that contradict each other, and levels, of the samplers in sigma and of flows."""

import inspect

import jax
import numpy as np
import pytest

import fdiff.schedulers
from fdiff import sampling
from tests.schedulers.runs import SHAPE, diffusers_class, double_precision, draws, network

PARTS = [
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, 1),
    ("EulerDiscreteScheduler", {"timestep_spacing": "leading"}, 1),
    ("HeunDiscreteScheduler", {}, 2),
    ("KDPM2DiscreteScheduler", {}, 2),
    ("DPMSolverSDEScheduler", {}, 2),
    ("EDMEulerScheduler", {}, 1),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, 1),
    ("FlowMatchHeunDiscreteScheduler", {}, 2),
]


@pytest.mark.parametrize(("name", "config", "calls"), PARTS)
def test_strength_keeps_the_last_steps(name, config, calls):
    scheduler = getattr(fdiff.schedulers, name)(**config)
    whole, part = scheduler.plan(20), scheduler.plan(20, strength=0.6)
    assert len(part) == len(whole) - 8 * calls
    for leaf in ("t", "sigma", "carry", "from_x0", "from_eps"):
        np.testing.assert_array_equal(getattr(part, leaf), getattr(whole, leaf)[-len(part):])


def test_a_multistep_solver_warms_up_anew_at_strength():
    scheduler = fdiff.schedulers.LMSDiscreteScheduler()
    first = scheduler.plan(20, strength=0.5)[0]
    np.testing.assert_allclose(first.carry[0, 0] + first.from_x0[0], 1, rtol=1e-6)
    assert not np.any(first.carry[0, 1:])


TIMED = [name for name in fdiff.schedulers.__all__ if name.endswith("Scheduler")
         and "timesteps" in inspect.signature(getattr(fdiff.schedulers, name).plan).parameters]
BETAS = [name for name in fdiff.schedulers.__all__ if hasattr(getattr(fdiff.schedulers, name), "trained_betas")
         and name != "IPNDMScheduler"]  # whose trained_betas are the levels of one run


@pytest.mark.parametrize("name", TIMED)
@pytest.mark.parametrize("timesteps", [[], [1, 5, 9], [9, 9, 1], [np.nan, 1], [np.inf, 9], [[9, 5]], [5, -1], "abc",
                                       (t for t in (9, 5))])
def test_bad_timesteps_are_one_sentence(name, timesteps):
    with pytest.raises(ValueError, match="timesteps must"):
        getattr(fdiff.schedulers, name)().plan(timesteps=timesteps)


@pytest.mark.parametrize("name", BETAS)
def test_trained_betas_are_as_many_as_timesteps(name):
    with pytest.raises(ValueError, match="trained_betas has 3 numbers and num_train_timesteps is 1000"):
        getattr(fdiff.schedulers, name)(trained_betas=(0.1, 0.2, 0.3)).plan(5)


@pytest.mark.parametrize("eta", [-0.5, 2.0])
@pytest.mark.parametrize("name", ["DDIMScheduler", "TCDScheduler"])
def test_eta_lies_within_0_and_1(name, eta):
    with pytest.raises(ValueError, match=r"eta is .*; it must lie within \[0, 1\]"):
        getattr(fdiff.schedulers, name)().plan(10, eta=eta)


@pytest.mark.parametrize("name", ["LCMScheduler", "TCDScheduler"])
def test_a_distilled_run_has_strength_within_0_and_1(name):
    with pytest.raises(ValueError, match=r"strength is 1\.5; it must lie"):
        getattr(fdiff.schedulers, name)().plan(10, strength=1.5)


@pytest.mark.parametrize("name", BETAS)
def test_trained_betas_may_be_a_list_or_an_array(name):
    betas = np.linspace(1e-4, 0.02, 1000)
    cls = getattr(fdiff.schedulers, name)
    wanted = cls(trained_betas=tuple(betas.tolist()))
    assert wanted == cls(trained_betas=betas) == cls(trained_betas=betas.tolist())
    assert hash(wanted) == hash(cls(trained_betas=betas))


NUMBERS = [
    ("num_train_timesteps", 0, "it must be a whole number of 1 or more"),
    ("num_train_timesteps", 10.5, "it must be a whole number"),
    ("num_train_timesteps", "1000", "it must be a whole number"),
    ("solver_order", "2", "it must be a whole number"),
    ("beta_start", None, "it must be a number"),
    ("time_shift_type", "odd", "it can be exponential or linear"),
]


@pytest.mark.parametrize(("option", "value", "message"), NUMBERS)
def test_an_option_of_another_kind_is_one_sentence(option, value, message):
    with pytest.raises(ValueError, match=f"{option} is {value!r}; {message}"):
        fdiff.schedulers.UniPCMultistepScheduler(**{option: value})
    with pytest.raises(ValueError, match=f"{option} is {value!r}; {message}"):
        fdiff.schedulers.UniPCMultistepScheduler.from_config({option: value})


def test_whole_numbers_may_be_written_as_floats_or_numpy():
    scheduler = fdiff.schedulers.UniPCMultistepScheduler(num_train_timesteps=1000.0, solver_order=np.int64(3))
    assert scheduler == fdiff.schedulers.UniPCMultistepScheduler(solver_order=3)


STRENGTH = [name for name in fdiff.schedulers.__all__ if name.endswith("Scheduler")
            and "strength" in inspect.signature(getattr(fdiff.schedulers, name).plan).parameters]


@pytest.mark.parametrize("strength", [None, "half", 1.5, -0.1, np.nan])
@pytest.mark.parametrize("name", STRENGTH)
def test_a_strength_that_is_none_is_one_sentence(name, strength):
    with pytest.raises(ValueError, match="strength is"):
        getattr(fdiff.schedulers, name)().plan(10, strength=strength)


def test_a_prediction_type_that_is_none_is_one_sentence():
    with pytest.raises(ValueError, match="prediction_type is None; it can be epsilon"):
        fdiff.schedulers.DDIMScheduler(prediction_type=None).plan(10)


@pytest.mark.parametrize(("strength", "message"), [(0.01, "leaves none of 20 steps"), (1.2, "must lie within")])
def test_a_bad_strength_is_one_sentence(strength, message):
    with pytest.raises(ValueError, match=message):
        fdiff.schedulers.HeunDiscreteScheduler().plan(20, strength=strength)


WRONG = [
    ("EulerDiscrete", {"use_karras_sigmas": True, "use_beta_sigmas": True}, {}, "karras and beta sigmas contradict"),
    ("EulerDiscrete", {"use_karras_sigmas": True}, {"timesteps": [9, 3]}, "timesteps contradict karras sigmas"),
    ("EulerDiscrete", {}, {"timesteps": [3, 9]}, "must fall"),
    ("EulerDiscrete", {}, {"timesteps": [1000]}, "within 0 and 999"),
    ("EulerDiscrete", {}, {"sigmas": [1.0, 2.0]}, "sigmas must fall"),
    ("EulerDiscrete", {}, {"sigmas": [1.0]}, "two numbers or more"),
    ("EulerDiscrete", {}, {"timesteps": [9], "sigmas": [1.0, 0.0]}, "not timesteps and sigmas"),
    ("EulerDiscrete", {}, {"n": None}, "pass exactly one of num_inference_steps, timesteps, sigmas"),
    ("EulerDiscrete", {}, {"n": 0}, "num_inference_steps is 0"),
    ("EulerDiscrete", {"timestep_spacing": "leading"}, {"n": 1001}, "more than the 1000 timesteps"),
    ("EulerDiscrete", {"interpolation_type": "cubic"}, {}, "linear or log_linear"),
    ("EulerDiscrete", {"final_sigmas_type": "one"}, {}, "zero or sigma_min"),
    ("EulerDiscrete", {"timestep_type": "odd"}, {}, "discrete or continuous"),
    ("EulerDiscrete", {"prediction_type": "odd"}, {}, "prediction_type is 'odd'"),
    ("EulerDiscrete", {"timestep_type": "continuous", "prediction_type": "v_prediction"}, {"timesteps": [9]},
     "timesteps contradict timestep_type continuous"),
    ("LMSDiscrete", {}, {"order": 0}, "order is 0"),
    ("EDMEuler", {"sigma_schedule": "linear"}, {}, "karras or exponential"),
    ("EDMEuler", {"prediction_type": "sample"}, {}, "epsilon or v_prediction"),
    ("EDMDPMSolverMultistep", {"solver_order": 4}, {}, "solver_order is 4"),
    ("EDMDPMSolverMultistep", {"algorithm_type": "dpmsolver"}, {}, "algorithm_type is 'dpmsolver'"),
    ("CosineDPMSolverMultistep", {"solver_order": 3}, {}, "solver_order is 3"),
    ("FlowMatchEulerDiscrete", {"use_dynamic_shifting": True}, {}, "needs mu"),
    ("FlowMatchEulerDiscrete", {}, {"n": None}, "pass num_inference_steps, timesteps or sigmas"),
    ("FlowMatchEulerDiscrete", {}, {"n": 3, "sigmas": [1.0, 0.5]}, "different numbers of steps"),
    ("FlowMatchEulerDiscrete", {}, {"sigmas": [0.5, 1.0]}, "sigmas must fall"),
    ("FlowMatchLCM", {"scale_factors": (1.0, 2.0)}, {}, "scale_factors change the shape"),
    ("DPMSolverMultistepInverse", {"algorithm_type": None}, {}, "algorithm_type is None"),
    ("LTXEulerAncestralRF", {"eta": 2.0}, {}, "eta is 2.0"),
    ("LTXEulerAncestralRF", {}, {"sigmas": [1.5, 0.0]}, "sigmas begin at 1.5"),
    ("MiniMaxH3", {}, {"n": 1}, "num_inference_steps is 1"),
    ("MiniMaxH3", {"shift": 0.0}, {}, "shift is 0.0"),
    ("MiniMaxH3", {}, {"sigmas": [1.0, 0.5]}, "from 1 at most to 0"),
    ("Piflow", {"n_grid": 1}, {}, "n_grid is 1"),
    ("Piflow", {"final_step_size_scale": 1.5}, {}, "final_step_size_scale is 1.5"),
    ("RFD4Proteina", {}, {}, "a whole run needs 20"),
    ("RFD4Proteina", {"tail_steps": -3}, {"n": 30}, "tail_steps is -3; it must be 0 or more"),
    ("RFD4Proteina", {"tsr_k": 0.0}, {"n": 30}, "tsr_k is 0.0; it must be above 0"),
    ("RFD4Proteina", {}, {"n": 30, "start_time": "0.4"}, "start_time is '0.4'"),
    ("Piflow", {"shift": 0.0}, {}, "shift is 0.0; it must be above 0"),
    ("FlowMatchEulerDiscrete", {"shift": -1.0}, {}, "shift is -1.0; it must be above 0"),
    ("FlowMapEulerDiscrete", {}, {"n": 3, "timesteps": [900.0, 500.0]}, "timesteps and num_inference_steps ask for"),
    ("FlowMapEulerDiscrete", {}, {"timesteps": [900.0], "sigmas": [0.9]}, "sigmas and timesteps are both given"),
    ("ConsistencyDecoder", {"num_train_timesteps": 1000}, {"n": 2}, "the two steps begin at 1008"),
    ("Helios", {"stages": 4}, {}, "for 4 stages it must be 5 numbers"),
    ("Helios", {"stages": 0}, {}, "stages is 0; it must be 1 or more"),
    ("Helios", {"gamma": 0.0}, {}, "gamma is 0.0; it must be above 0"),
    ("Helios", {"use_dynamic_shifting": True}, {"mu": "1"}, "mu is '1'; it must be a number"),
    ("HeliosDMD", {"stages": 1}, {"sigmas": [0.5]}, "sigmas must be two or more"),
    ("RFD4Proteina", {"schedule_mode": "odd"}, {"n": 30}, "schedule_mode is 'odd'"),
    ("RFD4Proteina", {}, {"n": 30, "start_time": 1.0}, "start_time is 1.0"),
    ("Helios", {}, {"stage_index": 3}, "stage_index is 3"),
    ("Helios", {}, {"mu": 1.0}, "mu goes with use_dynamic_shifting"),
    ("Helios", {"shift": 3.0, "use_dynamic_shifting": True}, {"mu": 1.0}, "shift contradicts use_dynamic_shifting"),
    ("Helios", {}, {"sigmas": [1.0]}, "sigmas are for a scheduler of one stage"),
    ("Helios", {"scheduler_type": "dmd"}, {}, "scheduler_type is 'dmd'"),
    ("Helios", {"solver_order": 0}, {}, "solver_order is 0"),
    ("LCM", {}, {"n": 51}, "more than the 50 timesteps"),
    ("LCM", {}, {"original_inference_steps": 2000}, "original_inference_steps is 2000"),
    ("TCD", {}, {"eta": 1.5}, "eta is 1.5"),
    ("SCM", {}, {"n": 4, "intermediate_timesteps": 1.0}, "intermediate_timesteps is for"),
    ("SCM", {}, {"timesteps": [1.0, 0.0], "max_timesteps": 1.5}, "timesteps contradict max_timesteps"),
    ("CMStochasticIterative", {}, {"n": 41}, "more than the 40 timesteps"),
    ("IPNDM", {"trained_betas": (0.9, 0.5, 0.0)}, {}, "trained_betas are 3 levels"),
]


@pytest.mark.parametrize(("name", "config", "options", "message"), WRONG)
def test_a_contradiction_is_one_sentence(name, config, options, message):
    steps = options.get("n", None if {"timesteps", "sigmas"} & set(options) else 10)
    others = {k: v for k, v in options.items() if k != "n"}
    with pytest.raises(ValueError, match=message):
        getattr(fdiff.schedulers, f"{name}Scheduler")(**config).plan(steps, **others)


def test_linspace_may_lay_more_steps_than_the_training_had():
    plan = fdiff.schedulers.EulerDiscreteScheduler(num_train_timesteps=20).plan(30)
    assert len(plan) == 30 and np.all(np.diff(plan.t) < 0)


def test_the_image_size_shifts_a_flow():
    scheduler = fdiff.schedulers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    assert scheduler.mu(256) == pytest.approx(0.5) and scheduler.mu(4096) == pytest.approx(1.15)
    assert np.all(scheduler.plan(8, mu=scheduler.mu(4096)).t[1:] > scheduler.plan(8, mu=scheduler.mu(256)).t[1:])


def test_stochastic_inverted_flow_reaches_a_perfect_x0():
    scheduler = fdiff.schedulers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True, stochastic_sampling=True)
    plan, (noise, *fresh) = scheduler.plan(5), draws(5)
    x0, state = np.full(SHAPE, 0.3, np.float32), sampling.init(plan, noise)
    for i in range(5):
        eps = (state.x - plan.alpha[i] * x0) / plan.sigma[i]
        state = sampling.step(plan[i], state, x0 - eps, fresh[i])
    np.testing.assert_allclose(state.x, x0, atol=1e-5)


def test_the_corrector_loop_draws_from_a_key():
    scheduler = fdiff.schedulers.ScoreSdeVeScheduler(sigma_max=5.0)
    x = 5.0 * draws(0)[0]
    first, again, other = (scheduler.sample(lambda x, sigma: -x / (1 + sigma**2), x, jax.random.key(k),
                                            num_inference_steps=6, strength=0.5) for k in (0, 0, 1))
    assert np.isfinite(first).all() and np.array_equal(first, again) and not np.array_equal(first, other)
    with pytest.raises(ValueError, match="pass a key"):
        scheduler.sample(lambda x, sigma: -x, x)


@pytest.mark.parity
@pytest.mark.parametrize(("name", "config", "calls"), [part for part in PARTS if "SDE" not in part[0]])
def test_strength_against_diffusers(name, config, calls):
    torch = pytest.importorskip("torch")
    plan = getattr(fdiff.schedulers, name)(**config).plan(20, strength=0.6)
    start, kept = draws(0)[0] * plan.sigma[0], slice(8 * calls, None)
    with double_precision():
        other = diffusers_class(name).from_config(config)
        other.set_timesteps(20)
        other.set_begin_index(8 * calls)
        x = torch.tensor(start).double()
        for t in other.timesteps[kept]:
            seen = other.scale_model_input(x, t) if hasattr(other, "scale_model_input") else x
            x = other.step(torch.tensor(network(seen.numpy())), t, x).prev_sample
    state = sampling.init(plan, start)
    for row in (plan[i] for i in range(len(plan))):
        state = sampling.step(row, state, network(row.c_in * np.asarray(state.x)).astype(np.float32))
    np.testing.assert_allclose(plan.t, other.timesteps[kept], rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(state.x, x, atol=1e-5 * float(x.abs().max()))


ADDING = [
    ("EulerDiscreteScheduler", {}, {}),
    ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}, {"num_inference_steps": 20}),
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, {"num_inference_steps": 20}),
    ("EulerDiscreteScheduler", {"timestep_type": "continuous", "prediction_type": "v_prediction"},
     {"num_inference_steps": 20}),
    ("HeunDiscreteScheduler", {}, {"num_inference_steps": 20}),
    ("LMSDiscreteScheduler", {}, {}),
    ("EDMEulerScheduler", {}, {"num_inference_steps": 20}),
    ("CosineDPMSolverMultistepScheduler", {"sigma_max": 50.0}, {"num_inference_steps": 20}),
    ("CMStochasticIterativeScheduler", {}, {"num_inference_steps": 20}),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, {"num_inference_steps": 20}),
    ("LCMScheduler", {}, {}),
    ("TCDScheduler", {"beta_schedule": "squaredcos_cap_v2"}, {}),
    ("ScoreSdeVeScheduler", {}, {}),
]


@pytest.mark.parity
@pytest.mark.parametrize(("name", "config", "options"), ADDING)
def test_noise_is_added_as_by_diffusers(name, config, options):
    torch = pytest.importorskip("torch")
    other, ours = diffusers_class(name).from_config(config), getattr(fdiff.schedulers, name)(**config)
    if options:
        other.set_timesteps(**options)
    t = torch.tensor([1990, 7]) if name == "ScoreSdeVeScheduler" else other.timesteps[[1, -3]]
    x0, noise = draws(1)
    add = other.scale_noise if hasattr(other, "scale_noise") else other.add_noise
    args = (torch.tensor(x0), t, torch.tensor(noise)) if hasattr(other, "scale_noise") else \
        (torch.tensor(x0), torch.tensor(noise), t)
    wanted = add(*args).numpy()
    # diffusers' lowest sigmas, and timesteps read from them, hold float32's 1 - alphas_cumprod
    size = np.abs(wanted).max()
    np.testing.assert_allclose(ours.add_noise(x0, noise, t.numpy()), wanted, rtol=2e-4, atol=2e-5 * size)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["LCMScheduler", "TCDScheduler"])
def test_velocity_is_that_of_diffusers(name):
    torch = pytest.importorskip("torch")
    x0, noise = draws(1)
    t = np.array([900, 30])
    wanted = diffusers_class(name)().get_velocity(torch.tensor(x0), torch.tensor(noise), torch.tensor(t))
    np.testing.assert_allclose(getattr(fdiff.schedulers, name)().velocity(x0, noise, t), wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler",
                                  "CosineDPMSolverMultistepScheduler", "SCMScheduler", "EulerDiscreteScheduler",
                                  "FlowMatchEulerDiscreteScheduler"])
def test_a_network_that_says_the_velocity_is_perfect(name):
    scheduler = getattr(fdiff.schedulers, name)()
    if name == "EulerDiscreteScheduler":
        scheduler = scheduler.from_config(scheduler, prediction_type="v_prediction")
    row = scheduler.plan(2)[1]
    x0, noise = draws(1)
    x = scheduler.add_noise(x0, noise, row.t)
    np.testing.assert_allclose(sampling.predict(row, x, scheduler.velocity(x0, noise, row.t))[0], x0, atol=2e-4)


@pytest.mark.parametrize("half", [np.float32(0.5), np.array(0.5), jax.numpy.float32(0.5), jax.numpy.bfloat16(0.5)])
def test_a_share_may_be_any_number(half):
    wanted = fdiff.schedulers.DDIMScheduler().plan(10, strength=0.5, eta=0.5)
    found = fdiff.schedulers.DDIMScheduler().plan(10, strength=half, eta=half)
    np.testing.assert_array_equal(found.from_noise, wanted.from_noise)


@pytest.mark.parametrize("name", ["MiniMaxH3Scheduler", "RFD4ProteinaScheduler"])
def test_a_step_by_hand_asks_for_the_run(name):
    with pytest.raises(ValueError, match=f"a step of {name} needs num_inference_steps"):
        getattr(fdiff.schedulers, name)().step(np.zeros((1, 2)), 0.5, np.zeros((1, 2)))
