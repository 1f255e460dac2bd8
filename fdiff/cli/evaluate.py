"""What `fdiff evaluate` prints: figures of a model as JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fdiff.cli.evaluate_molecules import evaluate_molecules
from fdiff.limits import Limits


def evaluate(arguments: argparse.Namespace) -> str:
    """The figures of the model in a folder, beside data; or of the molecules of a file."""
    if arguments.model == "molecules" and arguments.file:
        return evaluate_molecules(arguments.file)
    if arguments.file:
        raise ValueError(f"FILE {arguments.file} is of no use beside {arguments.model}; leave it out, or say fdiff "
                         f"evaluate molecules {arguments.file}")
    if not arguments.data:
        raise ValueError("--data is missing; give what the model is compared with")
    for name, least in (("samples", 10), ("classifier_steps", 1)):
        Limits(least=least).check(f"--{name.replace('_', '-')}", getattr(arguments, name))
    from fdiff import hub

    folder = hub.folder_of(arguments.model)
    if folder is None:
        raise ValueError(f"{arguments.model} is no folder here; download the model, or give its folder")
    from fdiff.training import data

    source = data.find(Path(arguments.data).expanduser())
    from fdiff.training.quality import measure

    figures = measure(folder, source, samples=arguments.samples, seed=arguments.seed, steps=arguments.classifier_steps)
    return json.dumps(figures, indent=2)
