from tests.schedulers.cases import Case

NAME = "DDIMInverseScheduler"
CASES = [
    Case(NAME),
    Case(NAME, {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, "beta_schedule": "scaled_linear",
                "beta_start": 0.00085, "beta_end": 0.012}),
    Case(NAME, {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}, 20),
    Case(NAME, {"prediction_type": "sample", "set_alpha_to_one": False}, 20, double=True),
]
