from tests.schedulers.cases import Case

NAME = "DDPMScheduler"
CASES = [
    Case(NAME),
    Case(NAME, {"clip_sample": False, "beta_schedule": "scaled_linear", "beta_start": 0.0015,
                "beta_end": 0.0195}, 9),
    Case(NAME, {"variance_type": "fixed_small_log", "prediction_type": "v_prediction",
                "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}),
    Case(NAME, {"variance_type": "fixed_large", "timestep_spacing": "linspace", "prediction_type": "sample",
                "clip_sample_range": 0.8}, 50),
    Case(NAME, {"variance_type": "fixed_large", "steps_offset": 1, "beta_schedule": "laplace"}, 12),
    Case(NAME, {"variance_type": "learned_range", "beta_schedule": "squaredcos_cap_v2", "thresholding": True,
                "sample_max_value": 1.5}, channels=2),
    Case(NAME, {"variance_type": "learned_range", "clip_sample": False, "steps_offset": 1}, 20, channels=2),
    Case(NAME, {"beta_schedule": "sigmoid"}, None, plan={"timesteps": [999, 720, 400, 90, 3, 0]},
         set_timesteps={"timesteps": [999, 720, 400, 90, 3, 0]}, double=True),
    Case(NAME, {"variance_type": "learned_range"}, None, plan={"timesteps": [900, 350, 60]},
         set_timesteps={"timesteps": [900, 350, 60]}, channels=2),
]
