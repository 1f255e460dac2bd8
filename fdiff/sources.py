"""The kinds of places that models come from: folders and repositories of the Hub, and single files."""

from __future__ import annotations

import os
import re
from pathlib import Path

from fdiff import hub

# Of files of weights, which no repository's name has.
ENDINGS = (".safetensors", ".sft", ".bin", ".pt", ".pth", ".ckpt", ".gguf")
# A file of a repository: its address, or owner/name/path.
ON_HUB = re.compile(
    r"(?:https://(?:huggingface\.co|hf\.co)/)?(?P<repository>[\w.-]+/[\w.-]+)/"
    r"(?:(?:blob|resolve)/(?P<revision>[^/]+)/)?(?P<file>.+\.\w+)"
)


def is_single_file(source: str | Path) -> bool:
    """Whether a source is one file of weights, here or on the Hub; others are folders and repositories."""
    path = Path(os.path.expanduser(source))
    return not path.is_dir() and (path.is_file() or path.suffix.lower() in ENDINGS)


def find(source: str | Path, place: hub.Source) -> Path:
    """A single file, downloaded if need be; `place` says how to reach the Hub."""
    path = Path(os.path.expanduser(source))
    match = ON_HUB.fullmatch(os.fspath(source))
    if path.is_file() or match is None:
        if not path.is_file():
            raise FileNotFoundError(f"{source} is not there; check its name.")
        return path
    return hub.fetch(place._replace(name=match["repository"], revision=match["revision"]), match["file"])
