"""Classes by the names that configs give them."""

from pathlib import Path
from typing import Any

import fdiff.image_processors
import fdiff.models
import fdiff.schedulers
import fdiff.tokenizers


def find_component(name: str, source: str | Path) -> Any:
    """The model, scheduler or tokenizer class of that name. Raises ValueError where fdiff has none."""
    name = name.removeprefix("Flax")
    for package in (fdiff.models, fdiff.schedulers, fdiff.tokenizers, fdiff.image_processors):
        found = getattr(package, name, None)
        if isinstance(found, type):
            return found
    raise ValueError(f"{source} needs a {name}, which fdiff does not have")
