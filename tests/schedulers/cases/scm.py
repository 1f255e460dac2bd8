from tests.schedulers.cases import Case

NAME = "SCMScheduler"
EVEN = {"intermediate_timesteps": None}
ANGLES = {"timesteps": [1.57, 1.2, 0.6, 0.0]}
CASES = [
    Case(NAME, {}, 2),
    Case(NAME, {"sigma_data": 1.0}, 2, {"intermediate_timesteps": 1.1}, {"intermediate_timesteps": 1.1}),
    Case(NAME, {}, 50, set_timesteps=EVEN),
    Case(NAME, {}, 4, {"max_timesteps": 1.5}, {"max_timesteps": 1.5, **EVEN}),
    Case(NAME, {}, 3, ANGLES, {"max_timesteps": None, **ANGLES, **EVEN}),
]
