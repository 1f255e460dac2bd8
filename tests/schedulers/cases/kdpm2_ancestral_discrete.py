from tests.schedulers.cases import Case

NAME = "KDPM2AncestralDiscreteScheduler"
CASES = [
    Case(NAME, double=True),
    Case(NAME, {"beta_schedule": "scaled_linear", "timestep_spacing": "leading", "steps_offset": 1}, double=True),
    Case(NAME, {"timestep_spacing": "trailing", "prediction_type": "v_prediction"}, 30),
    Case(NAME, {"beta_schedule": "squaredcos_cap_v2"}, 7, double=True),
    Case(NAME, {"use_karras_sigmas": True}, double=True),
    Case(NAME, {"use_exponential_sigmas": True}, double=True),
    Case(NAME, {"use_beta_sigmas": True}, double=True),
    Case(NAME, {"num_train_timesteps": 100, "trained_betas": [0.001 * i for i in range(1, 101)]}, 10, double=True),
]
