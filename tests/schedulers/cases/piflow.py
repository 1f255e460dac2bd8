from tests.schedulers.cases import Case

NAME = "PiflowScheduler"
CASES = [
    Case(NAME),
    Case(NAME, {"shift": 1.0, "n_grid": 4, "final_step_size_scale": 1.0}, 4),
    Case(NAME, {"num_policy_substeps": 16, "eps": 1e-4}, 8),
    Case(NAME, {}, 1, double=True),
]
