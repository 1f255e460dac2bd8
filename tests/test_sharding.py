"""A batch sharded over devices: the same results, sharded likewise, over both kinds of axes and inside shard_map."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from jax.sharding import AxisType

from fdiff.models.layers import axes


def test_batches_over_eight_devices():
    command = [sys.executable, "-m", "tests.eight_devices"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout)
    assert len(found) == 21
    assert not {name: error for name, error in found.items() if error}


@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto])
def test_which_arrays_are_sharded(kind):
    mesh = jax.make_mesh((1,), ("data",), axis_types=(kind,))
    for spec, wanted in ((jax.P("data"), kind == AxisType.Explicit), (jax.P(), False)):
        assert axes.sharded(jax.device_put(jax.numpy.zeros((2, 3)), jax.NamedSharding(mesh, spec))) == wanted
