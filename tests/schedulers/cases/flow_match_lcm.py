from tests.schedulers.cases import Case

NAME = "FlowMatchLCMScheduler"
SIGMAS = {"sigmas": [1.0, 0.8, 0.55, 0.3, 0.1]}
CASES = [
    Case(NAME),
    Case(NAME, {"shift": 3.0, "shift_terminal": 0.05}, 4),
    Case(NAME, {"use_dynamic_shifting": True}, 8, {"mu": 0.9}, {"mu": 0.9}),
    Case(NAME, {"use_beta_sigmas": True}, 8),
    Case(NAME, {"shift": 3.0}, None, SIGMAS, SIGMAS),
]
