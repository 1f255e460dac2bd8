"""A batch sharded over devices: the same results, sharded likewise, over both kinds of axes and inside shard_map."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType

import fdiff
from fdiff.models.layers import axes
from tests.reference import make_causal_lm, make_t5, make_transformers

FEW = ("UNet2DConditionModel", "CLIPTextModel", "unconditional", "sample, by row", "sample, multistep", "gradient")


@pytest.mark.parametrize("names", [FEW, pytest.param((), marks=pytest.mark.sweep)], ids=["few", "all"])
def test_batches_over_eight_devices(names):
    command = [sys.executable, "-m", "tests.eight_devices", *names]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout)
    assert len(found) == (12 if names else 23)
    assert not {name: error for name, error in found.items() if error}


@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto])
def test_which_arrays_are_sharded(kind):
    mesh = jax.make_mesh((1,), ("data",), axis_types=(kind,))
    for spec, wanted in ((jax.P("data"), kind == AxisType.Explicit), (jax.P(), False)):
        assert axes.sharded(jax.device_put(jax.numpy.zeros((2, 3)), jax.NamedSharding(mesh, spec))) == wanted


def traced(model, *inputs, **named):
    """The outputs' shapes, where every input with a batch of two is sharded over two Explicit devices."""
    mesh = AbstractMesh((2,), ("data",), axis_types=(AxisType.Explicit,))

    def over_both(array):
        spec = jax.P("data") if array.shape[0] == 2 else jax.P()
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=jax.NamedSharding(mesh, spec))

    def apply(params, inputs, named):
        return model.apply({"params": params}, *inputs, **named)

    return jax.tree.leaves(jax.eval_shape(apply, model.shapes(), *jax.tree.map(over_both, (inputs, named))))


@pytest.mark.parametrize("name", make_transformers.CONFIGS)
def test_transformers_over_explicit_axes(name):
    cls, options = make_transformers.CONFIGS[name]
    for output in traced(getattr(fdiff, cls)(**options), **make_transformers.inputs(name)):
        assert output.sharding.spec[0] == "data"


@pytest.mark.parametrize("cases", [make_causal_lm, make_t5])
def test_text_encoders_over_explicit_axes(cases):
    for cls, options in cases.CONFIGS.values():
        for output in traced(getattr(fdiff, cls)(**options), *(array[:2] for array in cases.inputs())):
            assert output.sharding.spec[0] == "data"


def test_adapters_over_explicit_axes():
    adapter = fdiff.T2IAdapter(channels=(8, 8, 8, 8), num_res_blocks=1)
    for output in traced(adapter, np.zeros((2, 40, 24, 3), np.float32)):
        assert output.sharding.spec[0] == "data"
