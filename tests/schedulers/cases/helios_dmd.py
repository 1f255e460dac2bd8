from tests.schedulers.cases import Case

NAME = "HeliosDMDScheduler"
MU = {"mu": 1.7}
CASES = [
    *(Case(NAME, {}, 2, {"stage_index": i}, {"stage_index": i}) for i in range(3)),
    Case(NAME, {"shift": 3.0}, 20, {"stage_index": 1}, {"stage_index": 1}),
    Case(NAME, {"use_dynamic_shifting": True}, 5, {"stage_index": 2, **MU}, {"stage_index": 2, **MU}),
    Case(NAME, {"stages": 1, "stage_range": [0, 1], "shift": 3.0}, 8),
]
