"""A training from data to a Hub folder: what it leaves, and that a killed one goes on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import fdiff
from fdiff import registry
from fdiff.training import data, loop
from fdiff.training.tasks import TASKS

RANDOM = np.random.default_rng(0)
TINY = {"batch_size": 4, "channels": "8,8", "sample_every": 0, "save_every": 3}
KILLED = """
import os, signal, sys
from fdiff.training import data, loop
from fdiff.training.tasks import TASKS
from tests.training.test_loop import TINY
def report(after):
    if after.step == 7:
        os.kill(os.getpid(), signal.SIGKILL)
task = TASKS["class-conditional"]
loop.train(task, task.settings(steps=9, **TINY), data.find(sys.argv[1]), sys.argv[2], report=report)
"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(file, images=RANDOM.integers(0, 256, (20, 8, 8), np.uint8), labels=np.arange(20) % 3)
    return file


def trained(name, digits, folder, steps=9, resume=False, **options):
    task, seen = TASKS[name], []
    settings = task.settings(**{"steps": steps, **TINY, **options})
    pipe, params = loop.train(task, settings, data.find(digits), folder, resume=resume, report=seen.append)
    return pipe, params, seen


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "out"
    return folder, *trained("class-conditional", digits, folder, sample_every=9, samples=4)


def weights(folder):
    return (folder / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()


def losses(folder):
    return [(line["step"], line["loss"]) for line in map(json.loads, (folder / loop.METRICS).read_text().splitlines())]


def test_what_a_training_leaves(whole):
    folder, pipe, params, seen = whole
    again, loaded = fdiff.DiffusionPipeline.from_pretrained(folder)
    assert again == pipe and again.labels == ("0", "1", "2")
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    assert [step for step, _ in losses(folder)] == list(range(1, 10)) == [one.step for one in seen]
    assert all(one.metrics["images_per_second"] > 0 for one in seen)
    assert (folder / "loss.png").exists() and (folder / "samples" / "000009.png").exists()
    assert not list(folder.glob(".*.tmp"))


def test_a_killed_training_goes_on_bit_for_bit(whole, digits, tmp_path):
    folder = tmp_path / "killed"
    environment = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", KILLED, digits, folder], env=environment, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert not (folder / "model_index.json").exists()
    trained("class-conditional", digits, folder, resume=True, workers=0)
    assert losses(folder) == losses(whole[0])
    assert weights(folder) == weights(whole[0])


def test_unconditional_pictures(digits, tmp_path):
    pipe, params, seen = trained("unconditional", digits, tmp_path / "out", steps=2, prediction="flow",
                                 weight="min-snr", accumulate=2, dtype="bfloat16", samples=2, sample_every=2)
    assert isinstance(pipe, registry.lookup("DDPMPipeline", fdiff.DiffusionPipeline)) and len(seen) == 2
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))


def test_a_loss_that_is_no_number_stops_it(digits, tmp_path):
    with pytest.raises(ValueError, match=r"not a number in step \d+ \(samples \d+ to \d+"):
        trained("unconditional", digits, tmp_path / "out", steps=8, learning_rate=1e30, warmup=0, save_every=1)
    state = loop.Checkpoints(tmp_path / "out" / loop.CHECKPOINTS)
    assert state.latest() is not None, "the last good state is kept"
    state.close()


@pytest.mark.parametrize(("options", "words"), [
    ({"steps": 0}, "steps is 0"), ({"batch_size": 6, "accumulate": 4}, "does not divide"), ({"fit": "squeeze"}, "fit"),
    ({"channels": "8,eight"}, "channels is"), ({"channels": "8,8,8,8,8"}, "cannot be halved"),
    ({"prediction": "noise"}, "prediction is"), ({"clip": float("inf")}, "finite"),
    ({"weight": "snr"}, "weight is"), ({"decay": 1.0}, "decay is"),
])
def test_settings_that_do_not_fit(digits, tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        trained("class-conditional", digits, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_folders_that_do_not_fit(whole, digits, tmp_path):
    with pytest.raises(ValueError, match="give --resume"):
        trained("class-conditional", digits, whole[0])
    with pytest.raises(ValueError, match="leave --resume out"):
        trained("class-conditional", digits, tmp_path / "none", resume=True)
    with pytest.raises(ValueError, match="begun with '8,8'"):
        trained("class-conditional", digits, whole[0], resume=True, channels="8,16")
    with pytest.raises(ValueError, match="of another task"):
        trained("unconditional", digits, whole[0], resume=True)
    more = tmp_path / "more.npz"
    np.savez(more, images=RANDOM.integers(0, 256, (20, 8, 8), np.uint8), labels=np.arange(20) % 5)
    with pytest.raises(ValueError, match="of another network or optimizer"):
        trained("class-conditional", more, whole[0], resume=True)


def test_pictures_of_several_sizes(tmp_path):
    for i in range(8):
        Image.new("RGB", (8, 16 if i == 5 else 8)).save(tmp_path / f"{i}.png")
    with pytest.raises(ValueError, match="several sizes, such as 8x8 and 16x8; give --size"):
        trained("unconditional", tmp_path, tmp_path / "out", steps=8)


def test_names_with_dots_come_back_as_they_were(tmp_path):
    """Which Orbax, that joins them by dots, takes for one another."""
    tree = {"a": {"b": jax.numpy.arange(3.0)}, "a.b": jax.numpy.ones(3), "a.b.c": jax.numpy.zeros(1)}
    checkpoints = loop.Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, tree, {"taken": 4})
    checkpoints.close()
    checkpoints = loop.Checkpoints(tmp_path / "checkpoints")
    found, facts = checkpoints.restore(jax.tree.map(jax.numpy.zeros_like, tree))
    jax.tree.map(np.testing.assert_array_equal, found, tree)
    assert facts == {"taken": 4}
    with pytest.raises(ValueError, match=r"optimizer: \['a'\]\['b'\] is float32\[3\] there and absent here"):
        checkpoints.restore({"a": {"c": tree["a"]["b"]}, "a.b": tree["a.b"], "a.b.c": tree["a.b.c"]})
    checkpoints.close()


def test_steps_and_pictures_have_keys_of_their_own():
    key = jax.random.key(0)
    folded = jax.vmap(lambda i: jax.random.fold_in(key, i))(np.arange(100))
    assert (jax.random.split(key, 100) == folded).all(), "so what is split and what is folded in of one key meet"
    of_steps = jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(key, np.uint32(loop.STEPS)), i))(np.arange(100))
    assert not np.isin(jax.random.key_data(of_steps), jax.random.key_data(folded)).any()
