"""EGNNModel: what EDM's own code gives of a trained checkpoint, and what turning the molecule must do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdiff import edm_checkpoint, sampling
from fdiff.models import EGNNModel
from fdiff.models.egnn import centred
from fdiff.schedulers import PolynomialScheduler


def test_the_checkpoint_of_edm_gives_what_its_own_code_gives(shared_data):
    """The network at three times, the noise schedule, and the mean and deviation of one ancestral step, to 1e-5."""
    pipe, params = edm_checkpoint.load(shared_data / "weights" / "edm_qm9_nf128_l5" / "generative_model_ema.npy")
    with np.load(shared_data / "fixtures" / "edm_qm9_nf128_l5_forward.npz") as file:
        expected = dict(file)
    mask = expected["node_mask"][..., 0] > 0
    network = jax.jit(lambda x, t: pipe.egnn.apply({"params": params["egnn"]}, x, t, mask))
    out = np.asarray(network(expected["xh"], expected["t"][:, 0]))
    largest = np.abs(expected["eps"]).max((1, 2), keepdims=True)  # of each molecule: 88 at t = 0, and 3 at t = 1
    assert (np.abs(out - expected["eps"]) <= 1e-5 * largest).all()

    alpha, sigma = pipe.scheduler.levels(np.arange(201) / 200)
    assert np.abs(2 * np.log(sigma / alpha) - expected["gamma"]).max() < 1e-4  # of which float32 leaves 5e-5 at t = 0

    plan = pipe.scheduler.plan(200)
    row = plan[int(np.flatnonzero(np.isclose(plan.t, expected["step_t"]))[0])]
    out = network(expected["xh"], np.full(3, expected["step_t"], np.float32))
    mean = sampling.step(row, sampling.init(plan, expected["xh"]), out, 0.0).x
    assert np.abs(mean - expected["step_mu"]).max() < 1e-5
    assert np.abs(row.from_noise[0] - expected["step_sigma"]).max() < 1e-5


@pytest.fixture(scope="module")
def small():
    """A network whose layers do something, and molecules of four and six atoms in places for seven."""
    model = EGNNModel(in_features=3, hidden_features=8, num_layers=2, context_features=1)
    params = model.init_params(jax.random.key(0))
    for i in range(2):
        moves = params[f"e_block_{i}"]["gcl_equiv"]["coord_mlp.4"]
        moves["kernel"] = moves["kernel"] * 1e3
    mask = jnp.arange(7) < jnp.array([[4], [6]])
    x = jax.random.normal(jax.random.key(1), (2, 7, 6))
    x = jnp.concatenate([centred(x[..., :3], mask), x[..., 3:]], -1) * mask[..., None]
    apply = jax.jit(lambda x, mask: model.apply({"params": params}, x, 0.3, mask, jnp.ones((*mask.shape, 1))))
    return apply, x, mask


def test_turns_mirrors_and_permutations_go_through_and_shifts_do_nothing(small):
    apply, x, mask = small
    out = np.asarray(apply(x, mask))
    assert np.abs(out[0, :4, :3]).max() > 0.01 and np.abs(out[~np.asarray(mask)]).max() == 0
    assert np.abs(out[..., :3].sum(1)).max() < 1e-5
    rng = np.random.default_rng(0)
    for determinant in (1, -1):
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        turn *= np.sign(np.linalg.det(turn)) * determinant
        turned = apply(jnp.concatenate([x[..., :3] @ turn, x[..., 3:]], -1), mask)
        assert np.abs(turned - np.concatenate([out[..., :3] @ turn, out[..., 3:]], -1)).max() < 2e-5
    shifted = apply(x.at[..., :3].add(jnp.array([3.0, -2.0, 1.0])), mask)
    assert np.abs(shifted - out).max() < 2e-5
    order = rng.permutation(7)
    assert np.abs(apply(x[:, order], mask[:, order]) - out[:, order]).max() < 2e-5


def test_what_stands_where_no_atom_is_is_not_seen(small):
    apply, x, mask = small
    filled = jnp.where(mask[..., None], x, 100.0)
    assert np.abs(apply(filled, mask) - apply(x, mask)).max() < 1e-6


def test_the_schedule_is_the_polynomial_and_its_last_row_ends_at_data():
    scheduler = PolynomialScheduler(num_train_timesteps=10, power=3.0, noise_precision=1e-3)
    alpha, sigma = scheduler.levels(np.array([0.0, 0.5, 1.0]))
    assert np.allclose(alpha[1] ** 2, 0.998 * (1 - 0.5**3) ** 2 + 1e-3)
    assert np.allclose(sigma[0] ** 2, 1e-3) and np.allclose(np.asarray(alpha) ** 2 + np.asarray(sigma) ** 2, 1)
    plan = scheduler.plan(10)
    assert np.allclose(plan.t, np.arange(10, -1, -1) / 10)
    assert np.isclose(plan.from_noise[-1, 0], sigma[0] / alpha[0]) and np.isclose(plan.from_x0[-1, 0], 1)
    again = scheduler.plan(5, resamplings=3)
    assert len(again) == 5 * 5 + 1 and (again.c_in == 0).sum() == 10
    assert np.allclose(again.alpha[1::5][:5], scheduler.plan(5).alpha[1:])  # up again from where each step ended
    with pytest.raises(ValueError, match="num_inference_steps is 11; the model was trained with 10"):
        scheduler.plan(11)
