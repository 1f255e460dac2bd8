from tests.schedulers.cases import Case

NAME = "CosineDPMSolverMultistepScheduler"
CASES = [
    Case(NAME),
    Case(NAME, {"solver_type": "heun", "sigma_schedule": "karras", "sigma_data": 0.5, "prediction_type": "epsilon"},
         20),
    Case(NAME, {"solver_order": 1, "lower_order_final": False, "euler_at_final": True}, 10),
]
