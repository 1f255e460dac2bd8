from tests.schedulers.cases import Case

NAME = "LCMScheduler"
TIMESTEPS = {"timesteps": [999, 759, 499, 259]}
CASES = [
    Case(NAME),
    Case(NAME, {}, 4),
    Case(NAME, {"prediction_type": "v_prediction", "clip_sample": True, "clip_sample_range": 0.7}, 8),
    Case(NAME, {"prediction_type": "sample", "thresholding": True, "sample_max_value": 1.5,
                "beta_schedule": "linear"}, 6),
    Case(NAME, {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_scaling": 0.01}, 5),
    Case(NAME, {}, 4, {"original_inference_steps": 100, "trained_strength": 0.6},
         {"original_inference_steps": 100, "strength": 0.6}),
    Case(NAME, {"beta_schedule": "squaredcos_cap_v2"}, None, TIMESTEPS, TIMESTEPS),
]
