from tests.schedulers.cases import Case

NAME = "FlowMatchHeunDiscreteScheduler"
CHURN = {"s_churn": 9.0, "s_tmin": 0.1, "s_tmax": 0.8, "s_noise": 1.003}
CASES = [Case(NAME), Case(NAME, {"shift": 3.0}, 20), Case(NAME, {}, 20, CHURN, step=CHURN), Case(NAME, {}, 1)]
