import numpy as np

from tests.schedulers.cases import Case

NAME = "IPNDMScheduler"
BETAS = [float(b) for b in np.sin(np.linspace(0.97, 0, 21) * np.pi / 2)]
CASES = [
    Case(NAME, {"trained_betas": BETAS}, 20),
    Case(NAME, {"trained_betas": BETAS[-3:]}, 2),
    Case(NAME, double=True),
]
