from tests.schedulers.cases import Case

NAME = "DDIMScheduler"
CASES = [
    Case(NAME),
    Case(NAME, {"clip_sample": False}, 7),
    Case(NAME, {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1,
                "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
         plan={"eta": 0.5}, step={"eta": 0.5}),
    Case(NAME, {"prediction_type": "v_prediction", "timestep_spacing": "trailing",
                "rescale_betas_zero_snr": True},
         plan={"eta": 1.0}, step={"eta": 1.0}),
    Case(NAME, {"prediction_type": "sample", "timestep_spacing": "linspace", "clip_sample_range": 0.7}, 30),
    Case(NAME, {"thresholding": True, "sample_max_value": 2.0, "beta_schedule": "squaredcos_cap_v2"},
         plan={"use_clipped_model_output": True}, step={"use_clipped_model_output": True}),
    Case(NAME, {"num_train_timesteps": 100, "trained_betas": [0.001 * i for i in range(1, 101)]}, 10),
]
