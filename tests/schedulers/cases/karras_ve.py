from tests.schedulers.cases import Case

NAME = "KarrasVeScheduler"
CASES = [
    Case(NAME, level_in_t=True),
    Case(NAME, {"s_churn": 0.0}, 20, level_in_t=True),
    Case(NAME, {"sigma_max": 30.0, "s_max": 1.0, "s_noise": 1.0}, 12, level_in_t=True),
]
