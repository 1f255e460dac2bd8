from tests.schedulers.cases import Case

NAME = "FlowMapEulerDiscreteScheduler"
SIGMAS = {"sigmas": [1.0, 0.8, 0.55, 0.3, 0.1]}
TIMESTEPS = {"timesteps": [1000.0, 800.0, 500.0, 100.0]}
CASES = [
    Case(NAME),
    Case(NAME, {"shift": 5.0}, 4),
    Case(NAME, {"shift": 3.0}, None, SIGMAS, SIGMAS),
    Case(NAME, {"shift": 3.0}, None, TIMESTEPS, TIMESTEPS),
    Case(NAME, {}, 1),
]
