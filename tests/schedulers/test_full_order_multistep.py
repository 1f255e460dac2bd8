"""A sampler of fdiff's own: its order to the clean x, its levels, and flows from their own scheduler."""

import numpy as np
import pytest

from fdiff import FlowMatchEulerDiscreteScheduler, FullOrderMultistepScheduler, PNDMScheduler, solvers
from fdiff.plan import Grid

VARIANCE = 0.5


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_run_to_a_clean_x_keeps_its_order(order):
    errors = [abs(last_x(order, n) - np.sqrt(VARIANCE)) for n in (40, 80)]
    assert np.log2(errors[0] / errors[1]) > order + 0.5


def last_x(order, n):
    """x at the end of a flow from pure noise, 1, to Gaussian data; exact in its first rows, where history is short."""
    sigma = (1 + np.cos(np.pi * np.arange(n + 1) / n)) / 2
    sigma[-1] = 0
    grid, solver = Grid(sigma[:-1], 1 - sigma[:-1], sigma[:-1], 1 - sigma[1:], sigma[1:]), solvers.full_order(order)
    state = solver.memory(1.0, *[0.0] * order)
    for i, s in enumerate(sigma[:-1]):
        variance = (1 - s) ** 2 * VARIANCE + s**2
        if i <= order:
            state = state._replace(x=np.sqrt(variance))
        x0 = (1 - s) * VARIANCE / variance * state.x
        state = solver.step(i, grid, state, x0, (state.x - (1 - s) * x0) / s, 0.0)
    return state.x


def test_levels_are_dense_at_the_ends_and_their_times_have_fractions():
    plan = FullOrderMultistepScheduler.from_config(PNDMScheduler(beta_schedule="scaled_linear")).plan(12)
    steps = -np.diff(np.append(plan.sigma / (plan.alpha + plan.sigma), 0))
    assert plan.t[0] == 999 and steps[0] < steps[3] > 3 * steps[-1]
    assert np.any(plan.t != np.round(plan.t)) and np.all(np.diff(plan.t) < 0)


def test_it_is_made_from_the_scheduler_of_a_flow():
    scheduler = FullOrderMultistepScheduler.from_config(FlowMatchEulerDiscreteScheduler(shift=3.0))
    assert scheduler.use_flow_sigmas and scheduler.prediction_type == "flow_prediction" and scheduler.flow_shift == 3
    plan = scheduler.plan(6)
    np.testing.assert_allclose(plan.t, 1000 * plan.sigma, rtol=1e-6)
    assert plan.t[0] == 1000 and np.all(plan.sigma[1:] > FullOrderMultistepScheduler.from_config(
        FlowMatchEulerDiscreteScheduler()).plan(6).sigma[1:])
    dynamic = FullOrderMultistepScheduler.from_config(FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True))
    np.testing.assert_allclose(dynamic.plan(6, mu=np.log(3)).sigma, plan.sigma, rtol=1e-5)


@pytest.mark.parametrize(("make", "call", "message"), [
    (lambda: FullOrderMultistepScheduler(use_dynamic_shifting=True), {"num_inference_steps": 4}, "mu goes with"),
    (lambda: FullOrderMultistepScheduler(), {}, "pass exactly one of"),
    (lambda: FullOrderMultistepScheduler(solver_order=0), {}, "solver_order is 0"),
    (lambda: FullOrderMultistepScheduler.from_config(FlowMatchEulerDiscreteScheduler(invert_sigmas=True)), {}, "Mochi"),
])
def test_contradictions(make, call, message):
    with pytest.raises(ValueError, match=message):
        make().plan(**call)
