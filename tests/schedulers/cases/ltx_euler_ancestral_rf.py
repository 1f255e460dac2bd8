from tests.schedulers.cases import Case

NAME = "LTXEulerAncestralRFScheduler"
SIGMAS = {"sigmas": [1.0, 0.99, 0.8, 0.55, 0.3, 0.1, 0.0]}
PART = {"sigmas": [0.9, 0.6, 0.2]}
CASES = [
    Case(NAME),
    Case(NAME, {"eta": 0.4, "s_noise": 1.1, "shift": 3.0}, 20),
    Case(NAME, {"eta": 0.0}, 20),
    Case(NAME, {"shift": 3.0, "use_karras_sigmas": True}, 20),
    Case(NAME, {"use_dynamic_shifting": True, "shift_terminal": 0.1}, 20, {"mu": 1.7}, {"mu": 1.7}),
    Case(NAME, {"shift": 3.0}, None, SIGMAS, SIGMAS),
    Case(NAME, {}, None, PART, PART),
    Case(NAME, {}, 1),
]
