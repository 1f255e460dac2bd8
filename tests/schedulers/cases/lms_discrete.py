from tests.schedulers.cases import Case

NAME = "LMSDiscreteScheduler"
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
CASES = [
    Case(NAME),
    Case(NAME, {**SD, "timestep_spacing": "leading", "steps_offset": 1}, plan={"order": 3}, step={"order": 3}),
    Case(NAME, {**SD, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}, 30),
    Case(NAME, {"prediction_type": "sample", "beta_schedule": "squaredcos_cap_v2"}, 7, {"order": 2}, step={"order": 2},
         double=True),
    Case(NAME, {"use_karras_sigmas": True}, double=True),
    Case(NAME, {"use_exponential_sigmas": True}, double=True),
    Case(NAME, {"use_beta_sigmas": True}, double=True),
]
