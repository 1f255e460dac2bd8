"""Running averages, against the weights that they are meant to have."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fdiff import training
from fdiff.training import Snapshot, data, loop, recipe


def run(width, ends):
    """Snapshots of the average of parameters that are e_t, the t-th unit vector, after step t."""
    decay, average, kept, total = training.power(width), np.zeros(max(ends)), [], max(ends)
    for i in range(total):
        d = float(decay(np.float64(i)))
        average = d * average
        average[i] += 1 - d
        if i + 1 in ends:
            kept.append(Snapshot(width, i + 1, {"w": average.astype(np.float32)}))
    return kept


@pytest.mark.parametrize("width", [0.02, 0.05, 0.1, 0.2])
def test_the_weights_have_the_width_asked_for(width):
    weights = run(width, [2000])[0].params["w"].astype(np.float64)
    at = np.arange(2000) / 2000
    assert weights.sum() == pytest.approx(1, rel=1e-5)
    mean = (weights * at).sum()
    assert np.sqrt((weights * (at - mean) ** 2).sum()) == pytest.approx(width, rel=0.02)


@pytest.mark.parametrize("width", [0.04, 0.07, 0.15])
@pytest.mark.parametrize("done", [1000, 700])
def test_an_average_of_any_width_is_mixed_of_those_kept(width, done):
    ends = list(range(50, 1001, 50))
    kept = run(0.05, ends) + run(0.1, ends)
    wanted = np.pad(run(width, [done])[0].params["w"], (0, 1000 - done))
    mixed = training.post_hoc(kept, width, done)["w"]
    assert np.linalg.norm(mixed - wanted) < 0.06 * np.linalg.norm(wanted)
    nearest = min(np.linalg.norm(one.params["w"] - wanted) for one in kept)
    assert np.linalg.norm(mixed - wanted) < 0.3 * nearest


def test_an_average_that_was_kept_comes_back():
    ends = list(range(100, 1001, 100))
    kept = run(0.05, ends) + run(0.1, ends)
    np.testing.assert_allclose(training.post_hoc(kept, 0.05)["w"], kept[9].params["w"], atol=1e-5)


def test_what_cannot_be_averaged():
    with pytest.raises(ValueError, match=r"width of an average is 0\.4"):
        training.power(0.4)
    with pytest.raises(ValueError, match="no snapshots"):
        training.post_hoc([], 0.05)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settling(recipe.Settings):
    """Of a number that goes a tenth of the way to 1 in each step."""

    def optimizer(self):
        return optax.sgd(0.1)


class Nothing:
    def save_pretrained(self, folder, params):
        pass


def settling(settings, source, folder):
    return recipe.Recipe(
        {"w": jnp.zeros(1), "a": {"w": jnp.zeros(1)}, "a.w": jnp.zeros(1)},
        lambda params, batch, key: 0.5 * jnp.sum((params["w"] - 1) ** 2), lambda sample, random: {"x": np.zeros(1)},
        lambda arrays: arrays, lambda params: (Nothing(), params), lambda *_: [],
    )  # fmt: skip


def test_a_training_keeps_averages_of_which_any_other_is_made(tmp_path):
    task, source = recipe.Task(Settling, settling, ""), data.Arrays("zeros", np.zeros((8, 2, 2, 1), np.uint8))
    told = {"steps": 40, "batch_size": 4, "sample_every": 0, "clip": 1e3}

    def trained(resume=False, **more):
        settings = Settling(**told, keep_averages=5, **more)
        return float(loop.train(task, settings, source, tmp_path / "out", resume=resume)[1]["w"][0])

    def wanted(decay, average=0.0):
        for i in range(40):
            d = float(decay(np.float64(i)))
            average = d * average + (1 - d) * (1 - 0.9 ** (i + 1))
        return average

    assert trained() == pytest.approx(wanted(training.warmed(0.999)), rel=1e-4)
    for width in (0.05, 0.1):
        assert trained(resume=True, average=width) == pytest.approx(wanted(training.power(width)), rel=1e-4)
    assert trained(resume=True, average=0.2) == pytest.approx(wanted(training.power(0.2)), rel=0.02)
    assert trained(resume=True, average=0.2) < 0.99 * trained(resume=True, average=0.05)
    with pytest.raises(ValueError, match="no averages are kept to make it of"):
        Settling(average=0.1)
    for file in (tmp_path / "out" / "averages").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="holds no averages"):
        trained(resume=True, average=0.1)
