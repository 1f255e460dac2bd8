from tests.schedulers.cases import Case

NAME = "CogVideoXDPMScheduler"
CASES = [
    Case(NAME),
    Case(NAME, {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing",
                "snr_shift_scale": 1.0}),
    Case(NAME, {"prediction_type": "sample", "timestep_spacing": "linspace", "set_alpha_to_one": False}, 9),
    Case(NAME, {"beta_schedule": "linear", "steps_offset": 1}, 20),
    Case(NAME, {}, 1),
]
