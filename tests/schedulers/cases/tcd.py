from tests.schedulers.cases import Case

NAME = "TCDScheduler"
TIMESTEPS = {"timesteps": [999, 759, 499, 259]}
CASES = [
    Case(NAME, plan={"eta": 0.3}),
    Case(NAME, {"beta_schedule": "linear"}, 4, {"eta": 0.0}, step={"eta": 0.0}),
    Case(NAME, {"prediction_type": "v_prediction"}, 8, {"eta": 1.0}, step={"eta": 1.0}),
    Case(NAME, {"prediction_type": "sample"}, 6, {"eta": 0.3}),
    Case(NAME, {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}, 5, {"eta": 0.3}),
    Case(NAME, {}, 7, {"original_inference_steps": 100, "trained_strength": 0.6, "eta": 0.7},
         {"original_inference_steps": 100, "strength": 0.6}, {"eta": 0.7}),
    Case(NAME, {"beta_schedule": "squaredcos_cap_v2"}, None, {**TIMESTEPS, "eta": 0.3}, TIMESTEPS),
]
