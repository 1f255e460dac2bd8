"""Training on molecules: the loss, the bound of the likelihood, and a run from a file to a folder that draws."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdiff
from fdiff import edm_checkpoint, molecules
from fdiff.models import EGNNModel
from fdiff.molecules import molecule
from fdiff.schedulers import PolynomialScheduler
from fdiff.training import data, loop, tasks
from fdiff.training.loader import batches
from fdiff.training.molecule_data import encoded_molecules
from fdiff.training.molecules import molecule_loss, negative_log_likelihood
from fdiff.training.tasks.molecules import MoleculeSettings

WATER = molecule([[0, 0, 0.117], [0, 0.757, -0.469], [0, -0.757, -0.469]], "OHH")
HYDROGEN = molecule([[0, 0, 0], [0, 0, 0.74]], "HH")


def test_a_perfect_network_has_no_loss_and_padding_none():
    scheduler, mask = PolynomialScheduler(num_train_timesteps=50), jnp.arange(5) < jnp.array([[2], [4]])
    x0 = jax.random.normal(jax.random.key(0), (2, 5, 6)) * mask[..., None]
    x0 = x0.at[..., :3].add(-x0[..., :3].sum(1, keepdims=True) / mask.sum(1)[:, None, None]) * mask[..., None]

    def perfect(x, t):
        alpha, sigma = (level[:, None, None] for level in scheduler.levels(t))
        return (x - alpha * x0) / sigma

    assert molecule_loss(perfect, scheduler, x0, mask, jax.random.key(1)) < 1e-6
    blind = molecule_loss(lambda x, t: jnp.where(mask[..., None], 0 * x, 9.0), scheduler, x0, mask, jax.random.key(1))
    assert 0.2 < blind < 3  # the noise alone: of deviation 1 in features, and a little less in positions


def test_the_bound_of_the_likelihood_is_that_of_a_known_density():
    """Two atoms of one element, told apart by nothing: E of the bound by hand where the network says 0.

    With out = 0 the diffusion terms are T / 2 (SNR(t - 1) / SNR(t) - 1) |noise|^2, whose sum over t has expectation
    (dimensions / 2) sum_t (SNR(t - 1) / SNR(t) - 1); the prior, the constants and the error of the last step are known.
    """
    steps = 4
    pipe = fdiff.MoleculePipeline(
        EGNNModel(in_features=2, hidden_features=4, num_layers=1),
        PolynomialScheduler(num_train_timesteps=steps, noise_precision=1e-4), (1,), (0, 0, 1), (1.0, 1.0, 1.0),
    )  # fmt: skip
    params = {"egnn": jax.tree.map(jnp.zeros_like, pipe.egnn.init_params(jax.random.key(0)))}
    many = molecules.concatenate([HYDROGEN] * 4000)
    found = np.asarray(negative_log_likelihood(pipe, params, many, jax.random.key(1)), np.float64)
    alpha, sigma = (np.asarray(level, np.float64) for level in pipe.scheduler.levels(np.arange(steps + 1) / steps))
    ratio, free, features = (alpha / sigma) ** 2, 3, 4
    diffusion = (free + features) / 2 * (ratio[:-1] / ratio[1:] - 1).sum()
    size = 2 * 0.37**2 + 2 + 2  # |x0|^2: two atoms 0.37 from their middle, with a one and an atomic number of 1
    prior = 0.5 * alpha[-1] ** 2 * size + (free + features) * (0.5 * sigma[-1] ** 2 - 0.5 - np.log(sigma[-1]))
    last = free * (np.log(sigma[0] / alpha[0]) + 0.5 * np.log(2 * np.pi) + 0.5)
    error = found.std() / np.sqrt(len(found))
    assert abs(found.mean() - (diffusion + prior + last)) < 4 * error


def test_the_published_model_knows_real_molecules(shared_data):
    """In nats: real molecules are likelier than the same ones with two atoms exchanged."""
    pipe, params = edm_checkpoint.load(shared_data / "weights" / "edm_qm9_nf128_l5" / "generative_model_ema.npy")
    real = molecules.read(shared_data / "datasets" / "qm9" / "test.npz").take(slice(100, 104))
    swapped = real.numbers.copy()
    for i, j in enumerate(real.sizes - 1):
        swapped[i, 0], swapped[i, j] = real.numbers[i, j], real.numbers[i, 0]
    good, bad = (np.asarray(negative_log_likelihood(pipe, params, each, jax.random.key(0)))
                 for each in (real, real._replace(numbers=swapped)))  # fmt: skip
    assert (bad > good).all()


def test_molecules_of_a_file_are_trained_on(tmp_path):
    """Two steps, told of a property: a folder that draws molecules of the data's elements and sizes."""
    some = molecules.concatenate([WATER, HYDROGEN] * 4)._replace(properties={"mu": np.arange(8.0)})
    molecules.write(tmp_path / "some.npz", some)
    settings = MoleculeSettings(
        steps=2, batch_size=4, features=4, layers=1, timesteps=4, properties="mu", samples=2, sample_every=2
    )
    source = data.find(tmp_path / "some.npz")
    loop.train(tasks.TASKS["molecules"], settings, source, tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2] and np.isfinite([line["loss"] for line in lines]).all()
    assert len(list((tmp_path / "out" / "samples").glob("*.png"))) == 1
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "out")
    assert (pipe.elements, pipe.sizes, pipe.means, pipe.deviations) == ((1, 8), (0, 0, 4, 4), (3.5,), (2.0,))
    found = pipe(params, batch_size=2, key=jax.random.key(0), properties={"mu": 3.0}, progress=False).molecules
    assert set(found.sizes.tolist()) <= {2, 3} and set(np.unique(found.numbers)) <= {0, 1, 8}
    with pytest.raises(ValueError, match="properties has 'gap'; the data has mu"):
        tasks.TASKS["molecules"].recipe(MoleculeSettings(properties="gap"), source, tmp_path)
    with pytest.raises(ValueError, match="the data holds no molecules"):
        tasks.TASKS["molecules"].recipe(MoleculeSettings(), [], tmp_path)


def test_batches_are_of_molecules_of_nearly_one_size():
    """As often each, in places for the largest of their group; few of a size go with the next larger ones."""
    sizes = np.array([2, 3, 4, 4, 9, 10, 11, 12, 20])
    mask = np.arange(20) < sizes[:, None]
    x = np.where(mask[..., None], np.arange(9)[:, None, None] + 1.0, 0)
    source = encoded_molecules("some", x, mask, np.zeros((9, 20, 0)), 4)
    assert [group.tolist() for group in source.groups] == [[0, 1, 2, 3], [4, 5, 6, 7, 8]]
    stream = batches(source, lambda sample, random: dict(sample), 4, seed=1)
    seen = np.zeros(9, int)
    for _ in range(45):
        arrays = next(stream).arrays
        molecule = arrays["x"].max((1, 2)).astype(int) - 1
        assert arrays["x"].shape[1] == (20 if molecule.min() > 3 else 4)
        assert (arrays["mask"].sum(1) == sizes[molecule]).all()
        seen += np.bincount(molecule, minlength=9)
    assert seen.min() >= 19 and seen.max() <= 21
