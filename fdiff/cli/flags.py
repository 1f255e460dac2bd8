"""The flags of `fdiff generate` for options of pipelines: their requests say them, and flags.json keeps what they say.

The requests stand among what imports jax, and a command line is to be read before. After a change of requests:

    python -m fdiff.cli.flags
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("flags.json")

# How the command line reads an option, by its type as the request writes it; what is not here has no flag.
READ = {
    "int": ("int", "N"), "int | None": ("int", "N"), "Pixels": ("int", "PIXELS"), "Seed": ("int", "SEED"),
    "float": ("float", "X"), "float | None": ("float", "X"), "Scale": ("float", "X"), "Numbers": ("float", "X"),
    "Prompt": ("str", "TEXT"), "Labels": ("str", "CLASS"), "Pictures": ("str", "FILE"),
}  # fmt: skip
TYPES = {"int": int, "float": float, "str": str}


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
            doc = one.doc.split(":")[0].replace("%", "%%") if one.kind == "Pictures" else one.doc.replace("%", "%%")
            if one.kind == "bool":
                found.setdefault(one.flag, {"action": "store_true", "help": doc})
            elif one.kind in READ:
                kind, metavar = READ[one.kind]
                found.setdefault(one.flag, {"type": kind, "metavar": metavar, "help": doc})
    return found


if __name__ == "__main__":
    FILE.write_text(json.dumps(of_requests(), indent=2) + "\n", encoding="utf-8")
