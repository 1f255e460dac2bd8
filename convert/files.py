"""Saves that appear whole or not at all."""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Files that belong together: x.safetensors, x-00001-of-00002.safetensors and x.safetensors.index.json.
WEIGHTS = re.compile(r"(?P<stem>.+?)(-\d+-of-\d+)?\.safetensors(\.index(\.(?P<variant>[^.]+))?\.json)?")

CURE = "make room, or choose a place where you may write"


@contextmanager
def staged(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A fresh folder to write into, whose files move into `folder` once the block ends well.

    A new `folder` appears at once. One that exists keeps its other files, except weights that those written
    replace: shards and index of an earlier save. It may be a disk of its own, so the fresh folder is then in it, and
    beside it otherwise. If the block fails, nothing of it stays; an OSError, such as that of a full disk, becomes
    one sentence.
    """
    folder = Path(folder)
    place = folder if folder.is_dir() else folder.parent
    temporary = place / f".{folder.name}.{secrets.token_hex(4)}.tmp"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if folder.exists():
            _merge(temporary, folder)
        else:
            os.replace(temporary, folder)
    except OSError as error:
        raise OSError(f"{folder} was not saved ({_reason(error)}); {CURE}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A fresh name beside `path` to write a file under, which becomes `path` once the block ends well.

    If the block fails nothing of it stays, and an OSError becomes one sentence.
    """
    path = Path(path)
    temporary = path.parent / f".{secrets.token_hex(4)}.{path.name}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(f"{path} was not saved ({_reason(error)}); {CURE}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _reason(error: OSError) -> str:
    """What the system said, also of an error that is a sentence of this file already."""
    while isinstance(error.__cause__, OSError):
        error = error.__cause__
    return error.strerror or str(error)


def _merge(source: Path, target: Path) -> None:
    """Move every file of `source` to its place in `target`, a sharded checkpoint's index after its shards."""
    target.mkdir(exist_ok=True)
    written = sorted(source.iterdir(), key=lambda path: (path.suffix == ".json", path.name))
    for path in written:
        if path.is_dir():
            _merge(path, target / path.name)
        else:
            os.replace(path, target / path.name)
    families = {_family(path.name) for path in written} - {None}
    names = {path.name for path in written}
    for path in target.iterdir():
        if path.name not in names and _family(path.name) in families:
            path.unlink()


def _family(name: str) -> str | None:
    match = WEIGHTS.fullmatch(name)
    if match is None:
        return None
    return f"{match['stem']}.{match['variant']}" if match["variant"] else match["stem"]
