from tests.schedulers.cases import Case

NAME = "ScoreSdeVpScheduler"
CASES = [Case(NAME, double=True), Case(NAME, {"beta_max": 15.0, "sampling_eps": 0.01}, 20)]
