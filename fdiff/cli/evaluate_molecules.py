"""What `fdiff evaluate molecules FILE` prints."""

from __future__ import annotations

import json
import os


def evaluate_molecules(file: str) -> str:
    """How good the molecules of a file are, as JSON: four shares of 0 to 1, see `fdiff.molecules.metrics`."""
    from fdiff import molecules

    return json.dumps(molecules.evaluate(molecules.read(os.path.expanduser(file)))._asdict(), indent=2)
