from tests.schedulers.cases import Case

NAME = "EDMEulerScheduler"
CHURN = {"s_churn": 20.0, "s_tmin": 0.05, "s_tmax": 50.0, "s_noise": 1.003}
CASES = [
    Case(NAME),
    Case(NAME, {"sigma_schedule": "exponential", "sigma_data": 1.0, "prediction_type": "v_prediction"}, 20),
    Case(NAME, {"sigma_min": 0.01, "sigma_max": 20.0, "rho": 5.0, "final_sigmas_type": "sigma_min"}, 12),
    Case(NAME, plan=CHURN, step=CHURN),
]
