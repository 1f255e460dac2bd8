import numpy as np

from tests.schedulers.cases import Case

NAME = "UniPCMultistepScheduler"
STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
BH1 = {"solver_type": "bh1", "final_sigmas_type": "sigma_min"}
NOISE = {"predict_x0": False, "final_sigmas_type": "sigma_min"}
SIGMAS = [1.0, 0.9, 0.7, 0.4, 0.1]
CASES = [
    Case(NAME),
    Case(NAME, STABLE_DIFFUSION, 7),
    Case(NAME, {"solver_order": 1}, 20),
    Case(NAME, {"solver_order": 3, **STABLE_DIFFUSION}),
    Case(NAME, {"solver_order": 4, "disable_corrector": [0, 1, 5]}, 24),
    Case(NAME, {"solver_order": 2, "lower_order_final": False, "final_sigmas_type": "sigma_min"}, 12),
    Case(NAME, BH1),
    Case(NAME, {**BH1, "solver_order": 3, "prediction_type": "v_prediction"}, 18),
    Case(NAME, NOISE),
    Case(NAME, {**NOISE, **BH1, "solver_order": 3, "prediction_type": "v_prediction"}, 16),
    Case(NAME, {**NOISE, "prediction_type": "sample", "thresholding": True}, 20),
    Case(NAME, {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
    Case(NAME, {"prediction_type": "sample", "thresholding": True, "sample_max_value": 1.5}),
    Case(NAME, {**STABLE_DIFFUSION, "use_karras_sigmas": True, "solver_type": "midpoint"}),
    Case(NAME, {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 20.0, "final_sigmas_type": "sigma_min"}),
    Case(NAME, {**STABLE_DIFFUSION, "use_exponential_sigmas": True}, 20),
    Case(NAME, {**STABLE_DIFFUSION, "use_beta_sigmas": True}, 20),
    Case(NAME, {"timestep_spacing": "leading", "steps_offset": 1, "final_sigmas_type": "sigma_min"}, 20),
    Case(NAME, {**FLOW, "flow_shift": 3.0}),
    Case(NAME, {**FLOW, "use_karras_sigmas": True, **STABLE_DIFFUSION}, 20),
    Case(NAME, {**FLOW, "use_dynamic_shifting": True}, 20, plan={"mu": 0.8}, set_timesteps={"mu": 0.8}),
    Case(NAME, {**FLOW, "use_dynamic_shifting": True, "time_shift_type": "linear"}, 9, plan={"mu": 2.0},
         set_timesteps={"mu": 2.0}),
    Case(NAME, {**FLOW, "shift_terminal": 0.1, "flow_shift": 2.0}, None, plan={"sigmas": SIGMAS},
         set_timesteps={"sigmas": np.array(SIGMAS)}),
]
