from tests.schedulers.cases import Case

NAME = "RFD4ProteinaScheduler"
BACKBONE = {"schedule_mode": "log", "noise_mode": "1/t", "tsr_k": 2.0, "tsr_sigma": 0.5}
LATENTS = {"schedule_mode": "power", "noise_mode": "tan", "tsr_k": 3.0, "tsr_sigma": 2.0}
START = {"start_time": 0.4}
CASES = [
    Case(NAME, BACKBONE),
    Case(NAME, LATENTS),
    Case(NAME, {**BACKBONE, "tail_steps": 0}),
    Case(NAME, {**LATENTS, "tail_steps": 4, "tail_step_multiplier": 3}, 20),
    Case(NAME, {**BACKBONE, "t_lim_ode": 0.5, "t_lim_ode_below": 0.2}),
    Case(NAME, LATENTS, 30, START, START),
]
