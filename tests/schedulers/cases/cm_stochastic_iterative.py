from tests.schedulers.cases import Case

NAME = "CMStochasticIterativeScheduler"
CASES = [
    Case(NAME, {}, 40),
    Case(NAME, {"num_train_timesteps": 201, "clip_denoised": False, "sigma_data": 1.0, "s_noise": 0.9, "rho": 5.0}),
    Case(NAME, {}, 1),
    Case(NAME, {}, None, {"timesteps": [22, 0]}, {"timesteps": [22, 0]}),
]
