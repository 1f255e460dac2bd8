"""Whatever the options: a plan is finite and lands, or the error is one sentence; and half precision stays finite."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fdiff import sampling
from tests.schedulers.runs import hub_classes

CLASSES = hub_classes()
every = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)

CHOICES = {
    "algorithm_type": ["dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver", "deis", "data_prediction",
                       "noise_prediction"],
    "beta_schedule": ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"],
    "corrector_order": [1, 2, 3, 4],
    "eta": [0.0, 0.5, 1.0],
    "final_sigmas_type": ["zero", "sigma_min"],
    "flow_shift": [1.0, 3.0],
    "interpolation_type": ["linear", "log_linear"],
    "lambda_min_clipped": [-np.inf, -5.1],
    "predictor_order": [1, 2, 3, 4],
    "prediction_type": ["epsilon", "sample", "v_prediction", "flow_prediction"],
    "sample_max_value": [1.0, 2.0],
    "scaler": [0.5, 1.0, 2.0],
    "shift": [1.0, 3.0],
    "snr_shift_scale": [1.0, 3.0],
    "solver_order": [1, 2, 3, 4],
    "solver_type": ["midpoint", "heun", "bh1", "bh2", "logrho"],
    "steps_offset": [0, 1],
    "timestep_spacing": ["leading", "trailing", "linspace"],
    "variance_type": ["fixed_small", "fixed_large", "learned_range", None],
}


def options(cls):
    """Any of the class's options, mostly left alone."""
    drawn = {}
    for field in dataclasses.fields(cls):
        if isinstance(field.default, bool):
            drawn[field.name] = st.booleans()
        elif field.name in CHOICES:
            drawn[field.name] = st.sampled_from(CHOICES[field.name])
    return st.fixed_dictionaries({}, optional=drawn)


@every
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.data())
def test_any_options(cls, data):
    chosen, n = data.draw(options(cls)), data.draw(st.integers(1, 12))
    try:
        plan = cls(**chosen).plan(n)
    except ValueError as error:
        assert str(error) and "\n" not in str(error)
        assert "the solver" not in str(error), "what a user can choose must not break a solver"
        return
    finite = {name: leaf for name, leaf in vars(plan).items() if name != "clip"}
    assert all(np.isfinite(leaf).all() for leaf in finite.values())
    assert np.all((plan.c_in != 0) | (plan.from_eps[:, 0] == 0)), "a row without a network call uses none"


ROWS, SLOTS = 3000, 6
COUNTS = {"CMStochasticIterativeScheduler": 40, "ConsistencyDecoderScheduler": 2,
          "DPMSolverMultistepInverseScheduler": 999, "LCMScheduler": 50,
          "RePaintScheduler": 60, "SCMScheduler": 2, "TCDScheduler": 50}
LEAST = {"ConsistencyDecoderScheduler": 2, "MiniMaxH3Scheduler": 2, "PNDMScheduler": 4,
         "RFD4ProteinaScheduler": 20, "SCMScheduler": 2}


@jax.tree_util.Partial
def half(x, t):
    return jnp.tanh(0.5 * x.astype(jnp.bfloat16))


@every
def test_half_precision_stays_finite_from_one_step_to_a_thousand(cls):
    most, least = COUNTS.get(cls.__name__, 1000), LEAST.get(cls.__name__, 1)
    for n in (least, most):
        plan = cls().plan(n)
        x = jax.random.normal(jax.random.key(0), (1, 4, 4, 1)) * plan.start
        out = sampling.sample(half, plan.pad(rows=ROWS, slots=SLOTS), x, jax.random.key(1))
        assert np.isfinite(out).all(), n
