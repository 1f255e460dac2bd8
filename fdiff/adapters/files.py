"""Where the file of an adapter is."""

import os
from pathlib import Path

from fdiff import hub
from fdiff.sources import ENDINGS


def find(source: hub.Source, weight_name: str | None, names: tuple[str, ...]) -> Path:
    """The file that `source` names, or `weight_name`, or else the first of `names`, in a folder or a repository.

    For errors see `hub.fetch`; FileNotFoundError also for the name of a file that is not there.
    """
    path = Path(os.path.expanduser(source.name))
    if path.is_file():
        return path
    if path.suffix in ENDINGS and not path.is_dir():
        raise FileNotFoundError(f"{source.name} is not there; check its name.")
    return hub.fetch(source, *((weight_name,) if weight_name else names))
