"""The flags of `fdiff generate` and `fdiff train`: requests of pipelines and settings of tasks say them.

These stand among what imports jax, and a command line is to be read before, so flags.json and tasks.json keep what they
say. After a change of requests or settings:

    python -m fdiff.cli.flags
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("flags.json")
TASKS = Path(__file__).with_name("tasks.json")

# How the command line reads an option, by its type as the request writes it; what is not here has no flag.
READ = {
    "int": ("int", "N"), "int | None": ("int", "N"), "Pixels": ("int", "PIXELS"), "Seed": ("int", "SEED"),
    "float": ("float", "X"), "float | None": ("float", "X"), "Scale": ("float", "X"), "Numbers": ("float", "X"),
    "Atoms": ("int", "N"), "Modes": ("int", "N"), "Molecules | None": ("str", "FILE"), "Bonded": ("str", "SMILES"),
    "Prompt": ("str", "TEXT"), "Labels": ("str", "CLASS"), "Pictures": ("str", "FILE"),
    "References": ("str", "FILE"), "Audio": ("str", "FILE"),
    "Cache | None": ("str", "KIND:N"), "Properties": ("str", "NAME=X,..."),
    "str": ("str", "TEXT"), "str | None": ("str", "TEXT"),
}  # fmt: skip
PICTURES = ("Pictures", "References")  # whose docs say which arrays they may be, behind a colon
TYPES = {"int": int, "float": float, "str": str, "bool": bool}


def flags() -> dict[str, dict[str, Any]]:
    """The flags, as argparse takes them."""
    kept: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return {
        flag: {**options, "type": TYPES[options["type"]]} if "type" in options else {**options, "default": None}
        for flag, options in kept.items()
    }


def of_requests() -> dict[str, dict[str, str]]:
    """What flags.json keeps, from the requests of all pipelines; the simplest request says what an option is."""
    from fdiff import registry
    from fdiff.pipelines import DiffusionPipeline

    known: Any = [cls for _, cls in registry.known(DiffusionPipeline) if hasattr(cls, "steps")]
    found: dict[str, dict[str, str]] = {}
    for cls in sorted(known, key=lambda cls: len(cls.steps.task.options)):
        for one in cls.steps.task.options:
            if one.flag in (None, "num-images"):  # which is there for all
                continue
            doc = (one.doc.split(":")[0] if one.kind in PICTURES else one.doc).replace("%", "%%")
            if one.kind == "bool":
                found.setdefault(one.flag, {"action": "store_true", "help": doc})
            elif one.kind in READ:
                kind, metavar = READ[one.kind]
                found.setdefault(one.flag, {"type": kind, "metavar": metavar, "help": doc})
    return found


def tasks() -> dict[str, Any]:
    """What can be trained: of each task its doc, and its settings by their names, as `of_tasks` gives them."""
    kept: dict[str, Any] = json.loads(TASKS.read_text(encoding="utf-8"))
    return kept


def of_tasks() -> dict[str, Any]:
    """What tasks.json keeps: {task: {"doc": its doc, "data": whether it takes some, "settings": {name: {"type",
    "default", "help", and "limits" as `fdiff.limits.Limits` takes them, and "fixed" where a training is not resumed
    with another}}}}.


    Raises ValueError for a setting of a type that the command line does not read.
    """
    from dataclasses import MISSING

    from fdiff.pipelines.task import options_of
    from fdiff.training.recipe import fixed, limits_of
    from fdiff.training.tasks import TASKS

    def setting(task: Any, one: Any) -> dict[str, Any]:
        kind = one.kind.removesuffix(" | None")
        if kind not in TYPES:
            raise ValueError(f"{one.name} is of type {one.kind}; make it one of {', '.join(TYPES)}")
        default = {} if one.default is MISSING else {"default": one.default}  # needed where there is none
        limits = {name: value for name, value in limits_of(task)[one.name]._asdict().items() if value not in (None, ())}
        return {
            "type": kind, **default, "help": one.doc, **({"limits": limits} if limits else {}),
            **({"fixed": True} if one.name in fixed(task) else {}),
        }  # fmt: skip

    said = {
        name: {
            "doc": task.doc, "data": task.data,
            "settings": {one.name: setting(task.settings, one) for one in options_of(task.settings)},
        }
        for name, task in sorted(TASKS.items())
    }  # fmt: skip
    return dict(json.loads(json.dumps(said)))


if __name__ == "__main__":
    for file, said in ((FILE, of_requests()), (TASKS, of_tasks())):
        file.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
