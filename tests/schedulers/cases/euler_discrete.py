from tests.schedulers.cases import Case

NAME = "EulerDiscreteScheduler"
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
CHURN = {"s_churn": 20.0, "s_tmin": 0.05, "s_tmax": 50.0, "s_noise": 1.003}
CASES = [
    Case(NAME),
    Case(NAME, {**SD, "timestep_spacing": "leading", "steps_offset": 1}),
    Case(NAME, {**SD, "timestep_spacing": "trailing", "prediction_type": "v_prediction",
                "rescale_betas_zero_snr": True}, 30, double=True),
    Case(NAME, {"prediction_type": "sample", "beta_schedule": "squaredcos_cap_v2"}, 7, double=True),
    Case(NAME, {"use_karras_sigmas": True}, double=True),
    Case(NAME, {**SD, "use_karras_sigmas": True, "sigma_min": 0.002, "sigma_max": 700.0,
                "timestep_type": "continuous", "prediction_type": "v_prediction"}, 25, double=True),
    Case(NAME, {"use_exponential_sigmas": True, "timestep_spacing": "trailing"}, double=True),
    Case(NAME, {"use_beta_sigmas": True, "final_sigmas_type": "sigma_min"}, double=True),
    Case(NAME, {"interpolation_type": "log_linear"}, double=True),
    Case(NAME, {"num_train_timesteps": 100, "trained_betas": [0.001 * i for i in range(1, 101)]}, 10),
    Case(NAME, SD, None, {"timesteps": [990, 700, 300, 40, 3]}, {"timesteps": [990, 700, 300, 40, 3]}),
    Case(NAME, SD, None, {"sigmas": [14.0, 5.5, 2.0, 0.7, 0.0]}, {"sigmas": [14.0, 5.5, 2.0, 0.7, 0.0]},
         double=True),
    Case(NAME, SD, plan=CHURN, step=CHURN),
    Case(NAME, {**SD, "prediction_type": "v_prediction"}, plan=CHURN, step=CHURN),
    Case(NAME, {**SD, "prediction_type": "sample"}, plan=CHURN, step=CHURN),
]
