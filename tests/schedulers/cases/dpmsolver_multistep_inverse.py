from tests.schedulers.cases import Case

NAME = "DPMSolverMultistepInverseScheduler"
STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
CASES = [
    Case(NAME),
    Case(NAME, {**STABLE_DIFFUSION, "prediction_type": "v_prediction"}, 7),
    Case(NAME, {"solver_order": 3, "timestep_spacing": "leading", "steps_offset": 1}, 20),
    Case(NAME, {"solver_type": "heun", "timestep_spacing": "trailing", "euler_at_final": True}, 20),
    Case(NAME, {"algorithm_type": "dpmsolver", **STABLE_DIFFUSION}, 20),
    Case(NAME, {"prediction_type": "sample", "thresholding": True, "lambda_min_clipped": -5.1}, 20,
         double=True),
    Case(NAME, {**STABLE_DIFFUSION, "use_karras_sigmas": True}),
    Case(NAME, {**STABLE_DIFFUSION, "use_exponential_sigmas": True}, 20),
    Case(NAME, {**STABLE_DIFFUSION, "use_beta_sigmas": True}, 20),
]
