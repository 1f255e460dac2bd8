"""What holds for every scheduler class: fields and defaults of the Hub's, round trips, plans that make sense."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import fdiff.schedulers
from fdiff import sampling
from fdiff.schedulers import Scheduler
from tests.schedulers.runs import diffusers_class

CLASSES = sorted(Scheduler.__subclasses__(), key=lambda cls: cls.__name__)
every = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
STEPS = {"RFD4ProteinaScheduler": 20, "SCMScheduler": 2}
REQUIRED = {"RFD4ProteinaScheduler": {"schedule_mode": "log", "noise_mode": "1/t", "tsr_k": 1.0, "tsr_sigma": 1.0}}
ROWS = 24  # more than any of these plans has


def plan_of(cls):
    return cls().plan(STEPS.get(cls.__name__, 8))


@every
def test_is_exported_and_round_trips(cls, tmp_path):
    assert getattr(fdiff.schedulers, cls.__name__) is cls
    assert cls.from_config(json.loads(json.dumps(cls().to_config()))) == cls()
    cls().save_pretrained(tmp_path)
    assert cls.from_pretrained(tmp_path) == cls()


@every
def test_plans_are_finite_and_begin_at_the_noise_that_they_ask_for(cls):
    plan = plan_of(cls)
    for field in dataclasses.fields(plan):
        assert field.name == "clip" or np.isfinite(getattr(plan, field.name)).all(), field.name
    assert plan.sigma[0] <= plan.start * (1 + 1e-6)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(plan))


@every
def test_the_docstring_says_what_a_user_must_know(cls):
    text = " ".join((cls.__doc__ or "").split())
    assert "network call" in text or "DDIMScheduler" in text or "DDPMScheduler" in text
    assert "order" in text.lower()


@every
def test_noise_is_added_and_velocity_taken_at_the_levels(cls):
    scheduler, rng = cls(), np.random.default_rng(0)
    x0, eps = rng.normal(size=(2, 3, 4)).astype(np.float32), rng.normal(size=(2, 3, 4)).astype(np.float32)
    t = np.asarray(plan_of(cls).t[:2])
    alpha, sigma = (np.asarray(level).reshape(2, 1, 1) for level in scheduler.levels(t))
    np.testing.assert_allclose(scheduler.add_noise(x0, eps, t), alpha * x0 + sigma * eps, rtol=1e-5, atol=1e-5)
    assert np.isfinite(scheduler.velocity(x0, eps, t)).all()
    assert scheduler.add_noise(x0, eps, float(t[0])).shape == x0.shape


@every
def test_steps_by_hand_are_the_padded_run(cls):
    scheduler, plan, n = cls(), plan_of(cls), STEPS.get(cls.__name__, 8)
    x = np.random.default_rng(1).normal(size=(1, 2, 2, 1)).astype(np.float32) * plan.start
    noise = np.random.default_rng(2).normal(size=(ROWS, 1, 2, 2, 1)).astype(np.float32)
    wanted = sampling.sample(network, plan.pad(rows=ROWS, slots=8), x, noise=noise)
    state = x
    for i in range(len(plan)):
        row = plan[i]
        out = network(row.c_in * getattr(state, "x", state), row.t)
        state = scheduler.step(out, row.t, state, noise=noise[i], num_inference_steps=n).state
    np.testing.assert_allclose(state.x, wanted, rtol=1e-5, atol=1e-5 * float(np.abs(wanted).max()))


@jax.tree_util.Partial
def network(x, t):
    return 0.5 * x + 0.1 * jax.numpy.tanh(x)


@pytest.mark.parity
@every
def test_fields_and_defaults_are_those_of_diffusers(cls):
    pytest.importorskip("diffusers")
    config = diffusers_class(cls.__name__)(**REQUIRED.get(cls.__name__, {})).config
    other = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items() if not k.startswith("_")}
    ours = {name: value for name, value in cls().to_config().items() if name != "_class_name"}
    assert ours == other
