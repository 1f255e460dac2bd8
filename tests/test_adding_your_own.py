"""The skeletons of docs/adding-your-own.md run as they stand there."""

import re
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest

import fdiff
from fdiff import registry
from fdiff.schedulers import Scheduler
from tests.solvers import test_order as orders

PAGE = Path(__file__).parents[1] / "docs" / "adding-your-own.md"
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def skeletons():
    """A module of all of them, registered for as long as the tests of this file run."""
    text = PAGE.read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    module = types.ModuleType("skeletons")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "skeletons", module)
        patch.setattr(registry, "_ENTRIES", {name: list(found) for name, found in registry._ENTRIES.items()})
        for block in blocks:
            exec(compile(block, PAGE.name, "exec"), vars(module))
        yield module


def test_the_solver_has_the_order_that_it_declares(skeletons):
    assert re.search(r"order (\d)", skeletons.my_solver.__doc__)[1] == "2"
    for grid in (orders.exploding, orders.flow, orders.preserving):
        case = orders.Order("mine", lambda n: skeletons.my_solver(), grid, 2, history=1)
        coarse, fine = (orders.error(case, n) for n in (100, 200))
        assert np.log2(coarse / fine) == pytest.approx(2, abs=0.25)


def test_the_scheduler_draws_from_a_gaussian(skeletons, tmp_path):
    scheduler = skeletons.MyScheduler(clip_sample=False)
    mean, deviation = 0.5, 0.3

    def perfect(x, t):
        alpha, sigma = scheduler.levels(t)
        return sigma * (x - alpha * mean) / (alpha**2 * deviation**2 + sigma**2)

    plan = scheduler.plan(100)
    x = fdiff.sample(perfect, plan, plan.start * jax.random.normal(KEY, (4000,)))
    assert float(x.mean()) == pytest.approx(mean, abs=0.02) and float(x.std()) == pytest.approx(deviation, abs=0.02)
    assert len(scheduler.plan(10, strength=0.5)) == 5
    scheduler.save_pretrained(tmp_path / "scheduler")
    assert Scheduler.from_pretrained(tmp_path / "scheduler") == scheduler


def test_the_model_is_saved_and_loaded(skeletons, tmp_path):
    model = skeletons.MyModel(in_channels=1)
    params = model.init_params(KEY)
    x = jax.random.normal(KEY, (2, 8, 8, 1))
    out = model.apply({"params": params}, x, 3.0)
    assert out.shape == x.shape and np.abs(out - model.apply({"params": params}, x, 500.0)).max() > 1e-4
    model.save_pretrained(tmp_path / "model", params)
    again, tree = skeletons.MyModel.from_pretrained(tmp_path / "model")
    assert again == model
    np.testing.assert_array_equal(again.apply({"params": tree}, x, 3.0), out)
    with pytest.raises(ValueError, match="width"):
        skeletons.MyModel.from_config({"width": 0})


def test_the_pipeline_draws(skeletons, tmp_path):
    pipe = skeletons.MyPipeline(skeletons.MyModel(), skeletons.MyScheduler())
    params = {"model": pipe.model.init_params(KEY)}
    options = {"key": KEY, "num_inference_steps": 3, "size": 16, "output_type": "np", "progress": False}
    pictures = pipe(params, 2, **options).images
    assert pictures.shape == (2, 16, 16, 3) and 0 <= pictures.min() < pictures.max() <= 1
    pipe.save_pretrained(tmp_path / "mine", params)
    again, tree = fdiff.DiffusionPipeline.from_pretrained(tmp_path / "mine")
    assert again == pipe
    np.testing.assert_array_equal(again(tree, 2, **options).images, pictures)
    with pytest.raises(TypeError, match=r"MyPipeline has no option 'sise'; did you mean size\?"):
        pipe(params, sise=8)
