"""What a table is: predictions, what `tabulate` refuses, rows and padding."""

import numpy as np
import pytest

from fdiff import solvers
from fdiff.plan import PREDICTIONS, Grid, Memory, Solver, edm, epsilon, tabulate

LEVELS = np.array([1.2, 0.8, 0.4, 0.1])
GRID = Grid(LEVELS[:-1] * 100, np.cos(LEVELS[:-1]), np.sin(LEVELS[:-1]), np.cos(LEVELS[1:]), np.sin(LEVELS[1:]))


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("level", [(0.6, 0.8), (1.0, 3.0), (0.3, 0.7)])
def test_predictions_read_x0_and_eps_from_what_the_network_was_trained_on(kind, level):
    (alpha, sigma), x0, eps = level, 0.7, -1.3
    x, size = alpha * x0 + sigma * eps, np.hypot(alpha, sigma)
    out = {"epsilon": eps, "sample": x0, "v_prediction": (alpha * eps - sigma * x0) / size, "flow_prediction": eps - x0}
    x0_of, eps_of = PREDICTIONS[kind](alpha, sigma)
    assert x0_of[0] * x + x0_of[1] * out[kind] == pytest.approx(x0)
    assert eps_of[0] * x + eps_of[1] * out[kind] == pytest.approx(eps)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_edm_predictions_agree_with_each_other(kind):
    x0_of, eps_of = edm(0.5, kind)(1.0, 2.0)
    x, out = 1.3, 0.4
    x0, eps = x0_of[0] * x + x0_of[1] * out, eps_of[0] * x + eps_of[1] * out
    assert x0 + 2.0 * eps == pytest.approx(x)


def wrong(change):
    """DDIM whose step is changed."""
    step = solvers.ddim().step
    return Solver(lambda i, grid, state, x0, eps, noise: change(step(i, grid, state, x0, eps, noise), state, x0, eps))


REFUSED = [
    ("is not linear at row 0", wrong(lambda new, old, x0, eps: Memory(new.x + 0.1 * x0 * np.abs(x0)))),
    ("is not linear at row 0", wrong(lambda new, old, x0, eps: Memory(new.x + 0.1))),
    ("a perfect denoiser lands on alpha", wrong(lambda new, old, x0, eps: Memory(new.x + 0.1 * x0))),
    ("its noise adds up to", wrong(lambda new, old, x0, eps: Memory(new.x + 0.1 * eps))),
    ("divides by zero at row 0", wrong(lambda new, old, x0, eps: Memory(new.x / np.float64(0)))),
]


@pytest.mark.parametrize(("message", "solver"), REFUSED)
def test_a_bad_table_is_refused(message, solver):
    with pytest.raises(ValueError, match=message):
        tabulate(solver, GRID)


def test_what_else_is_refused():
    with pytest.raises(ValueError, match="at least one step"):
        tabulate(solvers.ddim(), GRID.rows(3))
    with pytest.raises(ValueError, match="prediction_type is 'noise'; it can be epsilon"):
        tabulate(solvers.ddim(), GRID, "noise")
    with pytest.raises(ValueError, match="cannot start from alpha = 0"):
        epsilon(0.0, 1.0)


def test_a_level_that_is_not_kept_by_design_is_no_error():
    quiet = Solver(lambda i, grid, state, x0, eps, noise: Memory(grid.alpha_to[i] * x0), keeps_level=False)
    assert np.allclose(tabulate(quiet, GRID).from_x0[:, 0], GRID.alpha_to)


def test_an_inversion_may_start_from_a_clean_x():
    up = Grid(*np.array([[9.0], [1.0], [0.0], [0.8], [0.6]]))
    row = tabulate(solvers.ddim(), up)[0]
    assert (row.from_x0[0], row.from_eps[0]) == pytest.approx((0.8, 0.6))


def test_rows_and_slices():
    plan = tabulate(solvers.ddim(), GRID)
    assert (len(plan), plan.slots, len(plan[1:])) == (3, 1, 2)
    assert plan[1].carry.shape == (1, 1) and plan[1:].start == pytest.approx(1)
    assert all(leaf.dtype == np.float32 for leaf in vars(plan).values())


def test_padding_adds_rows_that_change_nothing():
    plan = tabulate(solvers.dpm_multistep(2), GRID)
    padded = plan.pad(rows=5, slots=4)
    assert (len(padded), padded.slots) == (5, 4)
    assert not padded.c_in[3:].any() and not padded.from_noise[3:].any()
    np.testing.assert_array_equal(padded.carry[4], np.eye(4))
    np.testing.assert_array_equal(padded.carry[:3, :2, :2], plan.carry)
    np.testing.assert_array_equal(padded.t[3:], plan.t[-1])
    with pytest.raises(ValueError, match="cannot pad a plan of 3 rows and 2 slots to 2 rows"):
        plan.pad(rows=2)
