from tests.schedulers.cases import Case

NAME = "FlowMatchEulerDiscreteScheduler"
SIGMAS = {"sigmas": [1.0, 0.8, 0.55, 0.3, 0.1]}
TIMESTEPS = {"timesteps": [1000.0, 800.0, 500.0, 100.0]}
CASES = [
    Case(NAME),
    Case(NAME, {"shift": 3.0}, 28),
    Case(NAME, {"use_dynamic_shifting": True}, 20, {"mu": 0.9}, {"mu": 0.9}),
    Case(NAME, {"use_dynamic_shifting": True, "time_shift_type": "linear", "shift_terminal": 0.1}, 20, {"mu": 1.7},
         {"mu": 1.7}),
    Case(NAME, {"shift": 2.0, "invert_sigmas": True}, 20),
    Case(NAME, {"stochastic_sampling": True}),
    Case(NAME, {"use_karras_sigmas": True}, 20),
    Case(NAME, {"use_exponential_sigmas": True, "shift": 2.0}, 20),
    Case(NAME, {"use_beta_sigmas": True}, 20),
    Case(NAME, {"shift": 3.0}, None, SIGMAS, SIGMAS),
    Case(NAME, {"shift": 3.0}, None, TIMESTEPS, TIMESTEPS),
    Case(NAME, {}, 1),
]
