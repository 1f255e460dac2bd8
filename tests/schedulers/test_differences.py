"""Where fdiff is right and diffusers is not, of schedulers: how large the difference is, as docs/differences.md has it.

A difference is that of the last samples, as a share of the largest value, with the network of the other tests.
"""

import numpy as np
import pytest

from tests.schedulers.cases import Case
from tests.schedulers.runs import run_diffusers, run_fdiff

pytestmark = pytest.mark.parity

SIGMA_MIN = {"final_sigmas_type": "sigma_min"}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
INVERTED = {"invert_sigmas": True}
SIZES = [
    ("DDIMScheduler", {"timestep_spacing": "trailing", "clip_sample": False}, 61, 37),
    ("DDPMScheduler", {"timestep_spacing": "trailing", "clip_sample": False}, 61, 41),
    ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}, 61, 3.4e-4),
    ("DPMSolverMultistepScheduler", {"timestep_spacing": "trailing"}, 61, 5.1e-3),
    ("UniPCMultistepScheduler", {"timestep_spacing": "trailing"}, 61, 4.7e-3),
    ("UnCLIPScheduler", {}, 20, 5.3e-4),
    ("EDMEulerScheduler", {"sigma_schedule": "exponential"}, 1, 202),
    ("EDMEulerScheduler", SIGMA_MIN, 1, 200),
    ("FlowMatchEulerDiscreteScheduler", {**INVERTED, "stochastic_sampling": True}, 20, 2.2),
    ("FlowMatchLCMScheduler", INVERTED, 20, 2.2),
    ("LTXEulerAncestralRFScheduler", {"s_noise": 0.0}, 20, 14),
    ("DPMSolverMultistepInverseScheduler", FLOW, 20, 0.78),
]


def difference(name, config, steps):
    pytest.importorskip("diffusers")
    ours, theirs = (run(Case(name, config, steps))["x"] for run in (run_fdiff, run_diffusers))
    return np.abs(ours - theirs).max() / np.abs(ours).max()


@pytest.mark.parametrize(("name", "config", "steps", "size"), SIZES)
def test_the_size_of_a_difference(name, config, steps, size):
    assert difference(name, config, steps) == pytest.approx(size, rel=0.1)


ROUNDED = [  # in float32, by other amounts on other processors
    ("DEISMultistepScheduler", {"solver_order": 3}, 150, 6.3e-4),
    ("SASolverScheduler", {"predictor_order": 3, "corrector_order": 3}, 150, 2.1e-5),
]


@pytest.mark.parametrize(("name", "config", "steps", "size"), ROUNDED)
def test_the_size_of_what_is_rounded(name, config, steps, size):
    assert size / 4 < difference(name, config, steps) < 4 * size


BROKEN = [
    ("UniPCMultistepScheduler", {"solver_type": "bh1"}, 20),
    *(("DPMSolverMultistepScheduler", {"solver_order": 3, layout: True, **SIGMA_MIN}, 20)
      for layout in ("use_karras_sigmas", "use_exponential_sigmas", "use_lu_lambdas")),
    ("EDMDPMSolverMultistepScheduler", {"solver_type": "heun", **SIGMA_MIN}, 20),
    ("DDPMScheduler", {"variance_type": "fixed_large_log"}, 20),
    ("UnCLIPScheduler", {}, 1),
]


@pytest.mark.parametrize(("name", "config", "steps"), BROKEN)
def test_what_diffusers_cannot_run(name, config, steps):
    pytest.importorskip("diffusers")
    case = Case(name, config, steps)
    assert np.isfinite(run_fdiff(case)["x"]).all()
    try:
        assert not np.isfinite(run_diffusers(case)["x"]).all()
    except ZeroDivisionError:
        assert name == "UnCLIPScheduler"
