"""What holds for every scheduler class: fields and defaults of the Hub's, round trips, plans that make sense."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import fdiff.schedulers
from fdiff import sampling
from tests.schedulers.runs import diffusers_class, hub_classes

CLASSES = hub_classes()
every = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
STEPS = {"ConsistencyDecoderScheduler": 2, "RFD4ProteinaScheduler": 20, "SCMScheduler": 2}
REQUIRED = {"RFD4ProteinaScheduler": {"schedule_mode": "log", "noise_mode": "1/t", "tsr_k": 1.0, "tsr_sigma": 1.0}}
OWN = {"AnnealedLangevinScheduler", "FullOrderMultistepScheduler", "PolynomialScheduler"}  # which no Hub class is
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


def drawn():
    """The first x (without its deviation) and the noise of each row."""
    rng = np.random.default_rng(3)
    return [rng.normal(size=(k, 1, 2, 2, 1)).astype(np.float32) for k in (1, ROWS)]


@pytest.fixture(scope="module")
def all_at_once():
    """The last x of every class, from one call that maps over their plans."""
    plans = [plan_of(cls).pad(rows=ROWS, slots=8) for cls in CLASSES]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *plans)
    (x,), noise = drawn()
    mapped = jax.vmap(lambda plan: sampling.sample(network, plan, x * plan.start, noise=noise))(stacked)
    return dict(zip(CLASSES, mapped, strict=True))


@every
def test_mapped_compiled_streamed_and_eager_runs_agree(cls, all_at_once):
    plan = plan_of(cls).pad(rows=ROWS, slots=8)
    (x,), noise = drawn()
    eager = sampling.init(plan, x * plan.start)
    with jax.disable_jit():  # otherwise each step compiles its branches
        for i in range(len(plan_of(cls))):
            row = plan[i]
            eager = sampling.step(row, eager, network(row.c_in * eager.x, row.t), noise[i])
    compiled = sampling.sample(network, plan, x * plan.start, noise=noise)
    *_, (streamed, _) = sampling.steps(network, plan, x * plan.start, noise=noise)
    for other in (all_at_once[cls], compiled, streamed.x):
        np.testing.assert_allclose(other, eager.x, rtol=1e-5, atol=1e-5 * float(np.abs(eager.x).max()))


def test_one_trace_serves_every_class_and_step_count():
    traces = []

    @jax.tree_util.Partial
    def counted(x, t):
        traces.append(1)
        return network(x, t)

    (x,), _ = drawn()
    key, first = jax.random.key(0), 0
    for cls in CLASSES:
        plan = plan_of(cls)
        for n in {2, len(plan)}:
            sampling.sample(counted, plan[:n].pad(rows=ROWS, slots=8), x, key)
            first = first or len(traces)
    assert len(traces) == first


@pytest.mark.parity
@every
def test_fields_and_defaults_are_those_of_diffusers(cls):
    pytest.importorskip("diffusers")
    if cls.__name__ in OWN:
        pytest.skip("diffusers has no such class")
    config = diffusers_class(cls.__name__)(**REQUIRED.get(cls.__name__, {})).config
    other = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items() if not k.startswith("_")}
    ours = {name: value for name, value in cls().to_config().items() if name != "_class_name"}
    assert ours == other
