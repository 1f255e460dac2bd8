"""Plans on disk, so that a learned sampler can be kept and shared."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from convert import safetensors, weights
from convert.tensors import check_floating
from fdiff import hub
from fdiff.plan import Plan


def save_plan(file: str | Path, plan: Plan) -> None:
    """Write a plan as safetensors, one tensor a leaf, moved into place when it is whole."""
    leaves = {field.name: np.asarray(getattr(plan, field.name)) for field in dataclasses.fields(plan)}
    with hub.replacing(Path(file)) as part:
        safetensors.write(part, weights.arrays(leaves))


def load_plan(file: str | Path) -> Plan:
    """Read what `save_plan` wrote. Raises ValueError for a file that holds no plan, or leaves that do not fit."""
    found = weights.tensors(file)
    names = [field.name for field in dataclasses.fields(Plan)]
    old = [name for name in names if name not in found] == ["draws"]  # of a release that did not have it
    names = names[:-1] if old else names
    if set(found) != set(names):
        odd = sorted(set(found) ^ set(names))[0]
        raise ValueError(f"{file} is no plan: it {'holds' if odd in found else 'lacks'} {odd}; save one with save_plan")
    for name in names:
        check_floating(name, found[name], file)
    leaves = {name: np.array(found[name].read()) for name in names}
    plan = Plan(**leaves | ({"draws": leaves["from_noise"].any(-1).astype(np.float32)} if old else {}))
    rows, slots = len(plan), plan.slots
    fitting = {"x0_of": (2,), "eps_of": (2,), "carry": (slots, slots), "clip": (2,), "variance_of": (3,)}
    for name in names:
        shape = (rows, *fitting.get(name, (slots,) if name.startswith("from_") else ()))
        if getattr(plan, name).shape != shape:
            raise ValueError(f"{file} is no plan: {name} has shape {getattr(plan, name).shape} instead of {shape}")
    return plan
