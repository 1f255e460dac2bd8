from tests.schedulers.cases import Case

NAME = "DPMSolverSinglestepScheduler"
STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
AYS = [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]
CASES = [
    Case(NAME),
    Case(NAME, STABLE_DIFFUSION, 11),
    Case(NAME, {"solver_order": 3}),
    Case(NAME, {"solver_order": 3, "solver_type": "heun", "final_sigmas_type": "sigma_min"}, 12),
    Case(NAME, {"solver_type": "heun", "prediction_type": "v_prediction", "final_sigmas_type": "sigma_min"}, 10,
         double=True),
    Case(NAME, {"solver_order": 1, "lower_order_final": True}, 9),
    Case(NAME, {"prediction_type": "sample", "thresholding": True, "sample_max_value": 1.5}),
    Case(NAME, {**STABLE_DIFFUSION, "use_karras_sigmas": True}),
    Case(NAME, {**STABLE_DIFFUSION, "use_exponential_sigmas": True}, 20),
    Case(NAME, {**STABLE_DIFFUSION, "use_beta_sigmas": True}, 20),
    Case(NAME, {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"}, 20),
    Case(NAME, {"lambda_min_clipped": -5.1}),
    Case(NAME, STABLE_DIFFUSION, None, plan={"timesteps": AYS}, set_timesteps={"timesteps": AYS}),
    *(Case(NAME, {"algorithm_type": "sde-dpmsolver++", "solver_order": order, "solver_type": kind}, 24)
      for order in (1, 2, 3) for kind in ("midpoint", "heun")),
    *(Case(NAME, {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min", "solver_order": order,
                  "solver_type": kind}, 24)
      for order in (2, 3) for kind in ("midpoint", "heun")),
]
