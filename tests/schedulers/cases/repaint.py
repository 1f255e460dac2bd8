from tests.schedulers.cases import Case

NAME = "RePaintScheduler"
JUMPS = {"jump_length": 3, "jump_n_sample": 2}
CASES = [
    Case(NAME, {"num_train_timesteps": 30}, 30, plan=JUMPS, set_timesteps=JUMPS),
    Case(NAME, {"num_train_timesteps": 20, "eta": 1.0, "clip_sample": False, "beta_schedule": "squaredcos_cap_v2"},
         20, plan=JUMPS, set_timesteps=JUMPS),
    Case(NAME, {"num_train_timesteps": 25, "eta": 0.5, "beta_schedule": "sigmoid"}, 25),
    Case(NAME, {"eta": 1.0}, 10),
]
