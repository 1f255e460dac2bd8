from tests.schedulers.cases import Case

NAME = "HeliosScheduler"
EULER = {"scheduler_type": "euler"}
MU = {"mu": 0.7}
ONE = {"stages": 1, "stage_range": [0, 1]}
CASES = [
    *(Case(NAME, {}, 20, {"stage_index": i}, {"stage_index": i}) for i in range(3)),
    Case(NAME, {"shift": 3.0, "gamma": 0.25}, 20, {"stage_index": 1}, {"stage_index": 1}),
    Case(NAME, {"stages": 2, "stage_range": [0, 0.4, 1]}, 20, {"stage_index": 1}, {"stage_index": 1}),
    Case(NAME, {"use_dynamic_shifting": True}, 20, {"stage_index": 2, **MU}, {"stage_index": 2, **MU}),
    Case(NAME, {"use_dynamic_shifting": True, "time_shift_type": "linear", **EULER}, 20, {"stage_index": 1, **MU},
         {"stage_index": 1, **MU}),
    Case(NAME, {"solver_type": "bh1", "solver_order": 3}, 20, {"stage_index": 0}, {"stage_index": 0}),
    Case(NAME, {"disable_corrector": [0, 2]}, 20, {"stage_index": 0}, {"stage_index": 0}),
    Case(NAME, {"predict_x0": False, "prediction_type": "epsilon", "use_dynamic_shifting": True}, 20, {"mu": -2.0},
         {"stage_index": 0, "mu": -2.0}),
    Case(NAME, {"prediction_type": "v_prediction"}, 20, {"stage_index": 0}, {"stage_index": 0}),
    Case(NAME, EULER, 20, {"stage_index": 2}, {"stage_index": 2}),
    Case(NAME, {**EULER, **ONE}, 20),
    Case(NAME, {**EULER, **ONE, "shift": 3.0}, 20),
    Case(NAME, {**EULER, **ONE, "use_dynamic_shifting": True}, 20, MU, MU),
    Case(NAME, {**ONE, "solver_order": 1}, 20),
    Case(NAME, {}, 1, {"stage_index": 1}, {"stage_index": 1}),
]
