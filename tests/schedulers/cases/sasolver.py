from tests.schedulers.cases import Case

NAME = "SASolverScheduler"
STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
NOISE = {"algorithm_type": "noise_prediction"}
CASES = [
    Case(NAME),
    Case(NAME, STABLE_DIFFUSION, 7),
    Case(NAME, {"predictor_order": 1, "corrector_order": 1}, 20),
    Case(NAME, {"predictor_order": 3, "corrector_order": 4}, double=True),
    Case(NAME, {"predictor_order": 4, "corrector_order": 3, "lower_order_final": False}, 24, double=True),
    Case(NAME, {"predictor_order": 2, "corrector_order": 1, "prediction_type": "v_prediction"}, 12),
    Case(NAME, NOISE),
    Case(NAME, {**NOISE, "predictor_order": 3, "corrector_order": 3, "prediction_type": "v_prediction"}, 24,
         double=True),
    Case(NAME, {"prediction_type": "sample", "thresholding": True, "sample_max_value": 1.5}),
    Case(NAME, {"lambda_min_clipped": -5.1}, 20),
    Case(NAME, {**STABLE_DIFFUSION, "use_karras_sigmas": True}),
    Case(NAME, {**STABLE_DIFFUSION, "use_exponential_sigmas": True}, 20),
    Case(NAME, {**STABLE_DIFFUSION, "use_beta_sigmas": True}, 20, double=True),
    Case(NAME, {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"}, 20),
    Case(NAME, {"timestep_spacing": "trailing", "beta_schedule": "squaredcos_cap_v2"}, 20, double=True),
]
