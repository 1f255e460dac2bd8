"""Transformers as their authors lay them out, from those of today: the inverse of what is tested."""

import numpy as np

from convert import original_transformers, safetensors, weights


def full(name):
    """A parameter's name with its leaf, which only weights lack in the tables."""
    whole = (".bias", ".scale", "pos_embed", "_pad_token", ".mod.lin", "last.modulation.lin", "scale_shift_table")
    return name if name.endswith(whole) else f"{name}.weight"


def arrays(params):
    """The parameters by their names of today."""
    return {name: array.make() for name, array in weights.arrays(params).items()}


def original(found, prefix=""):
    """Arrays by their names of today in those of the original."""
    today = {name.removesuffix(".weight"): array for name, array in found.items()}
    shapes = {name: array.shape for name, array in today.items()}
    stacks = original_transformers.originals(shapes) or {
        name: (original_transformers.Rows(name, 0, len(array)),) for name, array in today.items()
    }
    return {
        prefix + full(name): np.concatenate([today[rows.name][rows.start : rows.stop] for rows in stack])
        for name, stack in stacks.items()
    }


def write(file, found):
    """A safetensors file of those arrays."""
    made = {name: safetensors.Array(x.shape, x.dtype, lambda x=x: x) for name, x in found.items()}
    safetensors.write(file, made)
    return file
