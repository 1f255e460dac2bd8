from tests.schedulers.cases import Case

NAME = "EulerAncestralDiscreteScheduler"
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
CASES = [
    Case(NAME),
    Case(NAME, {**SD, "timestep_spacing": "leading", "steps_offset": 1}),
    Case(NAME, {**SD, "timestep_spacing": "trailing", "prediction_type": "v_prediction",
                "rescale_betas_zero_snr": True}, 30, double=True),
    Case(NAME, {"beta_schedule": "squaredcos_cap_v2"}, 7),
]
