"""Windows: where they lie, what each says, and that a step of all is the mean of their own steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdiff
from fdiff import sampling
from fdiff.windows import lay_windows, windowed


@pytest.mark.parametrize(("length", "size", "overlap", "starts"), [
    (10, 10, 3, [0]), (4, 10, 3, [0]), (11, 10, 3, [0, 1]), (17, 10, 3, [0, 7]), (18, 10, 3, [0, 4, 8]),
    (20, 10, 0, [0, 10]),
])  # fmt: skip
def test_where_windows_lie(length, size, overlap, starts):
    windows = lay_windows(length, size, overlap)
    assert windows.starts.tolist() == starts
    total = np.zeros(length)
    for start, share in zip(windows.starts, windows.shares, strict=True):
        assert share.min() > 0
        total[start : start + windows.size] += share
    np.testing.assert_allclose(total, 1, rtol=1e-6)


def test_windows_fade_into_one_another():
    first, second = lay_windows(17, 10, 3).shares
    np.testing.assert_allclose(first[7:], [0.75, 0.5, 0.25])
    np.testing.assert_allclose(second[:3], [0.25, 0.5, 0.75])
    assert (first[:7] == 1).all() and (second[3:] == 1).all()


@pytest.mark.parametrize("overlap", [10, -1])
def test_windows_that_do_not_fit(overlap):
    with pytest.raises(ValueError, match=f"windows of 10 cannot overlap by {overlap}"):
        lay_windows(20, 10, overlap)


def test_a_step_is_the_mean_of_the_steps_of_all_windows():
    def network(x, t):
        return jnp.sin(x + t) - x.mean((1, 2), keepdims=True)

    plan, x = fdiff.DDIMScheduler(clip_sample=False).plan(3), jax.random.normal(jax.random.key(0), (2, 17, 2))
    (state, _), *_ = sampling.steps(windowed(network, 10, 3), plan, x)
    wanted = np.zeros(x.shape)
    windows = lay_windows(17, 10, 3)
    for start, share in zip(windows.starts, windows.shares, strict=True):
        (alone, _), *_ = sampling.steps(network, plan, x[:, start : start + 10])
        wanted[:, start : start + 10] += share[:, None] * alone.x
    np.testing.assert_allclose(state.x, wanted, atol=1e-5)


def test_a_program_is_as_long_for_many_windows_as_for_few():
    network = windowed(lambda x, t: x * t, 10, 3)
    few, many = (len(jax.make_jaxpr(network)(jnp.zeros((1, n, 1)), 0.5).eqns) for n in (20, 2000))
    assert few == many


def test_each_window_is_told_what_is_its_own():
    told = jnp.arange(4.0).reshape(2, 2)  # of two sounds, in two windows
    network = windowed(lambda x, t, condition: jnp.zeros_like(x) + condition[:, None, None], 10, 0)
    said = network(jnp.zeros((2, 20, 1)), 0.0, told)[..., 0]
    np.testing.assert_array_equal(said[:, ::10], told)
    alike = windowed(lambda x, t, condition: jnp.zeros_like(x) + condition[:, None, None], 10, 0, alike=True)
    np.testing.assert_array_equal(alike(jnp.zeros((2, 20, 1)), 0.0, told[:, 0])[:, 13, 0], told[:, 0])


def test_a_network_that_remembers():
    """Its memory goes from row to row, is no part of x, and is the same in both ways to run a plan."""
    plan, x = fdiff.DDIMScheduler(clip_sample=False).plan(4), jnp.ones((1, 3, 1))

    def network(x, t, memory):
        return 0.1 * x + memory["sum"], {"sum": memory["sum"] + x, "calls": memory["calls"] + 1}

    memory = {"sum": jnp.zeros((1, 3, 1)), "calls": jnp.int32(0)}
    *_, (last, _) = sampling.steps(network, plan, x, memory=memory)
    assert int(last.memory["calls"]) == 4
    state, total = sampling.init(plan, x), 0.0
    for i in range(4):
        seen = plan[i].c_in * state.x
        state, total = sampling.step(plan[i], state, 0.1 * seen + total), total + seen
    np.testing.assert_allclose(last.x, state.x, rtol=1e-5)
    np.testing.assert_allclose(sampling.sample(network, plan.pad(rows=6), x, memory=memory), last.x, rtol=1e-5)
