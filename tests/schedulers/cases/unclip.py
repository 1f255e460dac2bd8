from tests.schedulers.cases import Case

NAME = "UnCLIPScheduler"
CASES = [
    Case(NAME, double=True),
    Case(NAME, {"clip_sample": False}, 25, double=True),
    Case(NAME, {"prediction_type": "sample", "clip_sample_range": 5.0}, 10, double=True),
    Case(NAME, {"variance_type": "learned_range"}, 50, channels=2, double=True),
    Case(NAME, {"num_train_timesteps": 20}, 20),
]
