from tests.schedulers.cases import Case

NAME = "DDPMWuerstchenScheduler"
TIMESTEPS = [1.0, 0.7, 0.5, 0.2, 0.05]
CASES = [
    Case(NAME, double=True),
    Case(NAME, {"scaler": 2.0, "s": 0.02}, 10),
    Case(NAME, {"scaler": 0.5}, 20, double=True),
    Case(NAME, {}, None, plan={"timesteps": TIMESTEPS}, set_timesteps={"timesteps": TIMESTEPS}),
]
