from tests.schedulers.cases import Case

NAME = "HeunDiscreteScheduler"
CASES = [
    Case(NAME),
    Case(NAME, {"beta_schedule": "scaled_linear", "timestep_spacing": "leading", "steps_offset": 1}),
    Case(NAME, {"timestep_spacing": "trailing", "prediction_type": "v_prediction"}, 30),
    Case(NAME, {"prediction_type": "sample", "beta_schedule": "squaredcos_cap_v2"}, 7, double=True),
    Case(NAME, {"beta_schedule": "exp", "clip_sample": True, "clip_sample_range": 0.8}, 20, double=True),
    Case(NAME, {"use_karras_sigmas": True}, double=True),
    Case(NAME, {"use_exponential_sigmas": True}, double=True),
    Case(NAME, {"use_beta_sigmas": True}, double=True),
    Case(NAME, {}, None, {"timesteps": [990, 700, 300, 40, 3]}, {"timesteps": [990, 700, 300, 40, 3]}),
    Case(NAME, {"num_train_timesteps": 100, "trained_betas": [0.001 * i for i in range(1, 101)]}, 10),
]
