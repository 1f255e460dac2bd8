"""Helpers of the tests that compare models with what others computed."""

import gzip
import json

import jax
import numpy as np

from convert import layout, names


def assert_close(actual, expected, tolerance=1e-4):
    """Within 1e-4 of the largest value."""
    expected = np.asarray(expected, np.float32)
    assert actual.shape == expected.shape
    difference = np.abs(np.asarray(actual, np.float32) - expected).max()
    assert difference <= tolerance * np.abs(expected).max()


def read(file):
    """The arrays of an npz file."""
    with np.load(file) as arrays:
        return dict(arrays)


def from_torch(cls, torch_model):
    """The module and the parameters of a torch model."""
    model = cls.from_config(dict(torch_model.config))
    state = torch_model.state_dict()

    def one(path, leaf):
        path = tuple(entry.key for entry in path)
        return layout.from_torch(path, state.pop(layout.torch_name(path)).numpy())

    params = jax.tree_util.tree_map_with_path(one, model.shapes())
    assert all(names.is_buffer(name) for name in state)
    return model, params


def assert_names(model, manifest, copies=()):
    """The exported names and shapes are those of a manifest but `copies` of others, weights not being allocated."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(model.shapes())
    paths = {tuple(entry.key for entry in path): leaf.shape for path, leaf in leaves}
    ours = {layout.torch_name(path): list(layout.torch_shape(path, shape)) for path, shape in paths.items()}
    with gzip.open(manifest) as file:
        theirs = json.load(file)["tensors"]
    assert ours == {name: shape for name, shape in theirs.items() if name not in copies}
