"""Trainings on several devices and in several processes are those on one."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from fdiff import sharding
from tests.training import devices

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(file, images=RANDOM.integers(0, 256, (20, 8, 8), np.uint8), labels=np.arange(20) % 3)
    return file


@pytest.fixture(scope="module")
def eight(digits, tmp_path_factory):
    run = started("eight", digits, tmp_path_factory.mktemp("eight"))
    out, err = run.communicate(timeout=600)
    assert run.returncode == 0, err[-3000:]
    return json.loads(out.splitlines()[-1])


def started(*arguments):
    command = [sys.executable, "-m", "tests.training.devices", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            cwd=Path(__file__).parents[2])


def test_eight_devices_give_the_losses_of_one(eight):
    losses = eight["losses"]
    assert len(losses["one"]) == 6 and losses["one"][0] != losses["one"][-1]
    for name in ("data", "full"):
        np.testing.assert_allclose(losses[name], losses["one"], rtol=1e-4)


def test_a_batch_that_devices_do_not_divide(eight):
    assert eight["refused"] == (
        "batch_size 12 in accumulate 1 parts does not divide over 8 devices; choose a multiple of 8"
    ) and not eight["left"]


def test_what_devices_tell_each_other_in_a_step(eight):
    found, local = ({name: one[what] for name, one in eight["collectives"].items()} for what in ("found", "local"))
    assert local == {"data": {"in": [16, 64], "out": [64, 16]}, "full": {"in": [16, 8], "out": [8, 16]}}
    assert set(found["data"]) == {"all-reduce"}, "nothing but the sum of gradients and loss"
    assert set(found["full"]) == {"all-reduce", "all-gather"} and found["full"]["all-gather"] == 2, "each matrix once"
    assert found["data"]["all-reduce"] == found["full"]["all-reduce"] == 1, "the gradients and the loss, all in one"


def test_processes_stop_together_and_where_one_is_lost_go_on_on_fewer_devices(eight, digits, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    folder = tmp_path / "out"
    both = [started("one", digits, folder, f"{address},{i}/2") for i in range(2)]
    try:
        assert both[0].wait(timeout=600) == -signal.SIGKILL, both[0].stderr.read()[-3000:]
    finally:
        for process in both:  # the other one waits for what will not come
            process.kill()
            process.communicate()
    assert [Path(f"{folder}-{i}").read_text() for i in range(2)] == ["3", "3"], "both, where one of them was asked"
    np.testing.assert_allclose(devices.losses(folder), eight["losses"]["one"][: devices.KILLED_AFTER], rtol=1e-4)
    devices.trained(digits, folder, resume=True)
    np.testing.assert_allclose(devices.losses(folder), eight["losses"]["one"], rtol=1e-4)


def test_devices_that_do_not_fit(digits, tmp_path):
    with pytest.raises(ValueError, match="devices is 64 and there are"):
        devices.trained(digits, tmp_path / "out", devices=64)
    with pytest.raises(ValueError, match=r"shard is 'half'"):
        devices.trained(digits, tmp_path / "out", shard="half")
    with pytest.raises(ValueError, match=r"distributed is 'here'; it can be auto"):
        devices.trained(digits, tmp_path / "out", distributed="here")


def shapes(**sizes):
    return {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in sizes.items()}


@pytest.mark.skipif("jax.device_count() > 1")
def test_a_table_of_paths():
    mesh = sharding.mesh()
    table = (("up/", P(None, "data")), ("weight$", P("data")), ("", P()))
    tree = {"up": shapes(weight=(4, 4)), "down": shapes(weight=(4, 4), bias=(4,))}
    specs = jax.tree.map(lambda one: one.spec, sharding.shardings(tree, table, mesh))
    assert specs == {"up": {"weight": P(None, "data")}, "down": {"weight": P("data"), "bias": P()}}
    with pytest.raises(ValueError, match="no pattern of the table is found in down/bias"):
        sharding.shardings(tree, table[:2], mesh)


def test_the_longest_axis_that_is_divided():
    mesh = jax.sharding.AbstractMesh((4,), ("data",))
    for shape, spec in (((3, 3, 64, 128), P(None, None, None, "data")), ((128, 64), P("data")), ((2, 2050), P()),
                        ((4,), P()), ((7, 1024), P(None, "data"))):
        assert sharding.largest(shape, mesh) == spec
