"""Where diffusers' UniPC is not a number."""

import numpy as np
import pytest

from fdiff import sampling
from fdiff.schedulers import UniPCMultistepScheduler


@pytest.mark.parametrize("options", [
    {"solver_type": "bh1"},
    {"solver_type": "bh1", "solver_order": 3, "lower_order_final": False},
    {"lower_order_final": False},
    {"predict_x0": False},
], ids=str)
def test_the_step_to_sigma_zero_lands_on_x0(options):
    plan = UniPCMultistepScheduler(**options).plan(10)
    x0, state = np.float32([0.3, -0.8]), sampling.init(plan, np.ones(2))
    for i in range(len(plan)):
        state = sampling.step(plan[i], state, (state.x - plan.alpha[i] * x0) / plan.sigma[i])
    np.testing.assert_allclose(state.x, x0, atol=1e-5)


def test_as_many_steps_as_timesteps():
    plan = UniPCMultistepScheduler().plan(1000)
    assert np.isfinite(plan.carry).all() and np.isfinite(plan.from_x0).all()


@pytest.mark.parametrize(("options", "call", "message"), [
    ({"use_flow_sigmas": True, "use_beta_sigmas": True}, {"num_inference_steps": 5}, "contradict each other"),
    ({}, {"sigmas": [1.0, 0.5]}, "use_flow_sigmas"),
    ({"use_flow_sigmas": True, "use_dynamic_shifting": True}, {"num_inference_steps": 5}, "mu goes with"),
    ({"use_flow_sigmas": True}, {"sigmas": [0.5, 1.0]}, "must fall"),
    ({"solver_order": 0}, {"num_inference_steps": 5}, "solver_order is 0"),
    ({"solver_p": "DDIMScheduler"}, {"num_inference_steps": 5}, "solver_p"),
    ({"prediction_type": "flow_prediction"}, {"num_inference_steps": 5}, "needs use_flow_sigmas"),
    ({"solver_type": "bh3"}, {"num_inference_steps": 5}, "it can be bh2 or bh1"),
    ({"use_karras_sigmas": True}, {"timesteps": [900, 100]}, "timesteps contradict karras"),
    ({"timestep_spacing": "leading"}, {"num_inference_steps": 1000}, "no room"),
    ({}, {"num_inference_steps": 1001}, "more than the 1000 timesteps"),
    ({}, {}, "pass exactly one of"),
], ids=str)
def test_contradictions(options, call, message):
    with pytest.raises(ValueError, match=message):
        UniPCMultistepScheduler(**options).plan(**call)
