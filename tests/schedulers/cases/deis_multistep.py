from tests.schedulers.cases import Case

NAME = "DEISMultistepScheduler"
STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
CASES = [
    Case(NAME),
    Case(NAME, STABLE_DIFFUSION, 7),
    Case(NAME, {"solver_order": 1, "timestep_spacing": "leading", "steps_offset": 1}, 20),
    Case(NAME, {"solver_order": 3}, double=True),
    Case(NAME, {"solver_order": 3, "lower_order_final": False, "prediction_type": "v_prediction"}, 12),
    Case(NAME, {"prediction_type": "sample", "thresholding": True, "sample_max_value": 1.5}),
    Case(NAME, {"algorithm_type": "dpmsolver++", "solver_type": "midpoint"}, 20),
    Case(NAME, {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "use_dynamic_shifting": True},
         20, plan={"mu": 0.7}, set_timesteps={"mu": 0.7}),
    Case(NAME, {**STABLE_DIFFUSION, "use_karras_sigmas": True}),
    Case(NAME, {**STABLE_DIFFUSION, "use_exponential_sigmas": True}, 20),
    Case(NAME, {**STABLE_DIFFUSION, "use_beta_sigmas": True}, 20),
    Case(NAME, {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"}, 20,
         double=True),
    Case(NAME, {"timestep_spacing": "trailing", "beta_schedule": "squaredcos_cap_v2"}, 20),
]
