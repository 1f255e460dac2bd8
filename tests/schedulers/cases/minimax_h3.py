from tests.schedulers.cases import Case

NAME = "MiniMaxH3Scheduler"
SIGMAS = {"sigmas": [1.0, 0.8, 0.55, 0.3, 0.0]}
CASES = [Case(NAME), Case(NAME, {"shift": 3.0}, 20), Case(NAME, {}, 2), Case(NAME, {}, None, SIGMAS, SIGMAS)]
