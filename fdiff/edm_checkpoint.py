"""Checkpoints of molecules that EDM's own project wrote: generative_model_ema.npy, a file of torch for all its name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from convert import edm, files, pickles, weights
from convert.tensors import Tensor
from fdiff import hub
from fdiff.models import EGNNModel
from fdiff.pipelines.molecules import MoleculePipeline
from fdiff.schedulers import PolynomialScheduler

ARGS = "args.json"  # beside the file, what it was trained with; args.pickle holds the same, which is no mere data
# How many of the 100,000 molecules of QM9's training split have 0, 1, 2, ... atoms.
QM9 = (0, 0, 0, 1, 4, 5, 9, 16, 49, 124, 362, 807, 1689, 3060, 5136, 7796, 10644, 13025, 13364, 13832, 9482, 9970, 3393,
       4848, 539, 1506, 48, 266, 0, 25)


class Inspected(NamedTuple):
    """A pipeline, and the tensors of its network, not yet read."""

    pipe: MoleculePipeline
    tensors: dict[str, Tensor]


def inspect(file: str | Path) -> Inspected:
    """What the file, and an args.json beside it, say. Those of QM9 with hydrogens are known.

    Raises ValueError for a file of anything else.
    """
    path = Path(os.path.expanduser(file))
    files.check_whole(path)
    tensors = pickles.tensors(path)
    if not edm.is_edm(tensors):
        raise ValueError(f"{file} is no checkpoint of E(3) equivariant diffusion; name it by what it is")
    args = hub.read_json(path.parent / ARGS) if (path.parent / ARGS).is_file() else {}
    if args.get("dataset", "qm9") != "qm9" or args.get("remove_h") or args.get("conditioning"):
        raise ValueError(f"{file} was trained on other molecules than QM9's with hydrogens, or told of properties, and "
                         "no file says their sizes and means; convert another one")
    try:
        facts = edm.facts(tensors, args)
    except ValueError as error:
        raise ValueError(f"{file} {error}") from None
    pipe = MoleculePipeline(
        EGNNModel(**facts.network), PolynomialScheduler(**facts.schedule), sizes=QM9, scales=facts.scales
    )
    return Inspected(pipe, edm.network(tensors))


def load(file: str | Path, *, dtype: Any = None, sharding: Any = None) -> tuple[MoleculePipeline, dict[str, Any]]:
    """(pipeline, params) of the file, for errors see `inspect`."""
    pipe, tensors = inspect(file)
    path = Path(os.path.expanduser(file))
    return pipe, {"egnn": weights.fill(tensors, pipe.egnn.shapes(), file=path, dtype=dtype, sharding=sharding)}
