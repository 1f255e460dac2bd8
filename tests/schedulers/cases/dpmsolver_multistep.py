from tests.schedulers.cases import Case

NAME = "DPMSolverMultistepScheduler"
STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
AYS = [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]
CASES = [
    Case(NAME),
    Case(NAME, STABLE_DIFFUSION, 10),
    Case(NAME, {"solver_order": 1, "timestep_spacing": "trailing"}),
    Case(NAME, {"solver_order": 3, "timestep_spacing": "leading", "steps_offset": 1}),
    Case(NAME, {"solver_order": 3, "euler_at_final": True, "final_sigmas_type": "sigma_min"}, 14),
    Case(NAME, {"solver_type": "heun", "lower_order_final": False, "final_sigmas_type": "sigma_min"}, 8),
    Case(NAME, {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True,
                "timestep_spacing": "trailing"}),
    Case(NAME, {"prediction_type": "sample", "thresholding": True, "sample_max_value": 1.5}),
    Case(NAME, {**STABLE_DIFFUSION, "use_karras_sigmas": True}),
    Case(NAME, {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True}, 20, double=True),
    Case(NAME, {**STABLE_DIFFUSION, "use_exponential_sigmas": True}),
    Case(NAME, {"use_exponential_sigmas": True, "final_sigmas_type": "sigma_min"}, 12),
    Case(NAME, {**STABLE_DIFFUSION, "use_beta_sigmas": True}),
    Case(NAME, {**STABLE_DIFFUSION, "use_lu_lambdas": True, "solver_order": 3}),
    Case(NAME, {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"}),
    Case(NAME, {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "use_dynamic_shifting": True},
         20, plan={"mu": 0.7}, set_timesteps={"mu": 0.7}),
    Case(NAME, {"use_flow_sigmas": True, "prediction_type": "v_prediction"}, 20),
    Case(NAME, {"lambda_min_clipped": -5.1, "timestep_spacing": "linspace"}),
    Case(NAME, {"lambda_min_clipped": -4.0, "timestep_spacing": "trailing"}, 9),
    Case(NAME, STABLE_DIFFUSION, None, plan={"timesteps": AYS}, set_timesteps={"timesteps": AYS}),
    Case(NAME, {"algorithm_type": "sde-dpmsolver++"}),
    Case(NAME, {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"}),
    Case(NAME, {"algorithm_type": "sde-dpmsolver++", "solver_order": 3, "use_karras_sigmas": True}, double=True),
    *(Case(NAME, {"algorithm_type": kind, "final_sigmas_type": "sigma_min", **more})
      for kind in ("dpmsolver", "sde-dpmsolver")
      for more in ({}, {"solver_type": "heun"}, {"thresholding": True, "sample_max_value": 2.0},
                   {"solver_order": 1, "prediction_type": "v_prediction"})),
    Case(NAME, {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min", "solver_order": 3}),
    Case(NAME, {"algorithm_type": "deis", "solver_type": "logrho", "prediction_type": "sample",
                "final_sigmas_type": "sigma_min"}, 25, double=True),
]
