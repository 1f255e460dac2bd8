from tests.schedulers.cases import Case

NAME = "EDMDPMSolverMultistepScheduler"
CASES = [
    Case(NAME),
    Case(NAME, {"solver_order": 3, "sigma_schedule": "exponential", "prediction_type": "v_prediction"}, double=True),
    Case(NAME, {"solver_order": 3, "solver_type": "heun"}, 8),
    Case(NAME, {"solver_type": "heun", "sigma_data": 1.0, "euler_at_final": True, "lower_order_final": False}, 20),
    Case(NAME, {"algorithm_type": "sde-dpmsolver++", "sigma_max": 20.0}),
    Case(NAME, {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun", "solver_order": 2}, 20),
    Case(NAME, {"thresholding": True, "sample_max_value": 2.0, "final_sigmas_type": "sigma_min", "solver_order": 1}),
    Case(NAME, {"algorithm_type": "deis", "solver_type": "logrho", "final_sigmas_type": "sigma_min", "rho": 5.0}, 20),
]
