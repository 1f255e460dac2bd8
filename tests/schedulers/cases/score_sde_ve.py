from tests.schedulers.cases import Case

NAME = "ScoreSdeVeScheduler"
SMALL = {"sigma_max": 20.0, "num_train_timesteps": 50}
CASES = [Case(NAME, SMALL), Case(NAME, {**SMALL, "correct_steps": 2, "snr": 0.1}, 10),
         Case(NAME, {**SMALL, "correct_steps": 0, "sigma_min": 0.02}, 20)]
