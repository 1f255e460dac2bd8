"""The kinds of places that models come from: folders and repositories of the Hub, and single files."""

from __future__ import annotations

import os
from pathlib import Path

# Of files of weights, which no repository's name has.
ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf")


def is_single_file(source: str | Path) -> bool:
    """Whether a source is one file of weights, here or on the Hub; others are folders and repositories."""
    path = Path(os.path.expanduser(source))
    return not path.is_dir() and (path.is_file() or path.suffix.lower() in ENDINGS)
