"""What pages gave, kept in .cache/docs under a hash of what decides it, so that tests and builds run each page once."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from docs.making.pages import ROOT, blocks_of, text_of
from docs.making.run import run_page

CACHE = ROOT / ".cache" / "docs"
COMPILED = CACHE / "compiled"  # what JAX compiled for the pages
DECIDING = ("fdiff", "convert", "docs/making", "tests/fake_hub.py", "tests/reference")
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy", "pillow", "tokenizers", "huggingface_hub")


def made(page: Path) -> Path:
    """The folder of what the page made, run now unless it is there; it is absent where there is nothing to run."""
    blocks = blocks_of(text_of(page))
    code = json.dumps([(block.kind, block.title, block.code) for block in blocks])
    folder = CACHE / hashlib.sha256(f"{page.name} {code} {_all_else()}".encode()).hexdigest()[:24]
    if any(block.runs for block in blocks) and not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        run_page(page, partial, JAX_COMPILATION_CACHE_DIR=str(COMPILED), JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")
        partial.rename(folder)
    return folder


def forget_all_but(wanted: Iterable[Path]) -> None:
    """Remove what no page of today made."""
    kept = {*wanted, COMPILED}
    for folder in CACHE.iterdir() if CACHE.is_dir() else ():
        if folder not in kept:
            shutil.rmtree(folder)


@functools.cache
def _all_else() -> str:
    """A hash of what decides what code gives beside it: fdiff, its checkpoints, what runs pages, and the libraries."""
    digest = hashlib.sha256(" ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES).encode())
    for part in DECIDING:
        place = ROOT / part
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.is_file() and "__pycache__" not in file.parts and file.name not in ("hooks.py", "reference.py"):
                digest.update(file.relative_to(ROOT).as_posix().encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
