from tests.schedulers.cases import Case

NAME = "PNDMScheduler"
STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
CASES = [
    Case(NAME),
    Case(NAME, {**STABLE_DIFFUSION, "skip_prk_steps": True, "steps_offset": 1}),
    Case(NAME, {**STABLE_DIFFUSION, "skip_prk_steps": True, "set_alpha_to_one": True}, 7),
    Case(NAME, {"skip_prk_steps": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}),
    Case(NAME, {"skip_prk_steps": True, "timestep_spacing": "linspace"}, 3),
    Case(NAME, {"skip_prk_steps": True}, 1),
    Case(NAME, {"skip_prk_steps": True}, 2),
    Case(NAME, {"prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2"}, 24),
    Case(NAME, {"timestep_spacing": "linspace", "set_alpha_to_one": True}, 11),
    Case(NAME, {"num_train_timesteps": 100, "trained_betas": [0.001 * i for i in range(1, 101)]}, 4),
]
