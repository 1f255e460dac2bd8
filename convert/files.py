"""Saves that appear whole or not at all, and reading that says what is wrong.

What a save writes lies in a hidden folder of its own, locked for as long as the process lives, until it is whole.
Then the files move to their places one by one; meanwhile each folder says in `UNFINISHED` which of its files may be
of this save or of an earlier one, and those are not read. So a process that is killed leaves the earlier files, the
new ones, or files that refuse to be read; the next save clears away what it left, and says so.
"""

import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where nobody can tell a killed process from one that still writes: nothing is cleared
    fcntl = None  # type: ignore[assignment]

# Files that belong together: x.safetensors, x-00001-of-00002.safetensors and x.safetensors.index.json.
WEIGHTS = re.compile(r"(?P<stem>.+?)(-\d+-of-\d+)?\.safetensors(\.index(\.(?P<variant>[^.]+))?\.json)?")

UNFINISHED = ".unfinished-save"  # names of files, one a line

LOGGER = logging.getLogger("fdiff")
CURE = "make room, or choose a place where you may write"


@contextmanager
def staged(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A fresh folder to write into, whose files move into `folder` once the block ends well.

    A new `folder` appears at once. One that exists keeps its other files, except weights that those written
    replace: shards and index of an earlier save. It may be a disk of its own, so the fresh folder is then in it, and
    beside it otherwise. If the block fails, nothing of it stays; an OSError, such as that of a full disk, becomes
    one sentence. Raises ValueError for a folder without a name.
    """
    if not os.fspath(folder):
        raise ValueError("the name of the folder to write is empty; give one, or . for the current folder.")
    folder = Path(folder)
    try:
        with _fresh(folder if folder.is_dir() else folder.parent, folder.name) as temporary:
            yield temporary
            if folder.exists():
                _merge(temporary, folder)
            else:
                os.replace(temporary, folder)
    except OSError as error:
        raise OSError(f"{folder} was not saved ({_reason(error)}); {CURE}.") from error


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A place to write a file, of the same name, which becomes `path` once the block ends well.

    If the block fails nothing of it stays, and an OSError becomes one sentence. Raises ValueError without a name.
    """
    path = Path(path)
    if not path.name:
        raise ValueError("the name of the file to write is empty; give one.")
    try:
        with _fresh(path.parent, path.name) as temporary:
            yield temporary / path.name
            os.replace(temporary / path.name, path)
    except OSError as error:
        raise OSError(f"{path} was not saved ({_reason(error)}); {CURE}.") from error


def check_whole(file: str | os.PathLike[str]) -> None:
    """ValueError for a file that a save, which was cut off or still runs, may have replaced or not."""
    file = Path(file)
    if file.name in _unfinished(file.parent):
        raise ValueError(
            f"{file} may not be of the same save as the files beside it, since a save into {file.parent} was cut off "
            f"or still runs; save there again, or put all files there anew and remove {UNFINISHED}."
        )


@contextmanager
def reading(file: str | os.PathLike[str]) -> Iterator[None]:
    """Within, an OSError of the system, which is a number and a few words, becomes one sentence about the file."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # a sentence already
            raise
        cure = "check that it is a file, and that you may read it"
        raise type(error)(f"{file} cannot be read ({error.strerror}); {cure}.") from error


def _reason(error: OSError) -> str:
    """What the system said, also of an error that is a sentence of this file already."""
    while isinstance(error.__cause__, OSError):
        error = error.__cause__
    return error.strerror or str(error)


@contextmanager
def _fresh(place: Path, name: str) -> Iterator[Path]:
    """A hidden folder in `place` for what will be called `name`, without those that killed saves of it left."""
    temporary = place / f".{name}.{secrets.token_hex(4)}.tmp"
    temporary.mkdir(parents=True)
    lock = _locked(temporary)
    try:
        _clear(place, name, temporary)
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """A lock on the folder, which ends with the process; None where another has it, or there are no locks."""
    if fcntl is None:
        return None
    with suppress(OSError):
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise
        return lock
    return None


def _clear(place: Path, name: str, own: Path) -> None:
    """Remove the hidden folders of saves of that name whose process is gone, and say so."""
    hidden = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{8}}\.tmp")
    for path in [path for path in place.iterdir() if path != own and hidden.fullmatch(path.name)]:
        if (lock := _locked(path)) is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)
            LOGGER.warning("%s was left by a save that was cut off, and is removed", path)


def _merge(source: Path, target: Path) -> None:
    """Move every file of `source` to its place in `target`, and remove what is no longer of use there."""
    folders = [source, *sorted(path for path in source.rglob("*") if path.is_dir())]
    places = {folder: target / folder.relative_to(source) for folder in folders}
    changes = {folder: _mark(folder, place) for folder, place in places.items()}
    for folder, place in places.items():
        written, gone = changes[folder]
        for name in written:
            os.replace(folder / name, place / name)
        for name in gone:
            (place / name).unlink()
    for place in reversed(places.values()):
        (place / UNFINISHED).unlink()


def _mark(folder: Path, place: Path) -> tuple[list[str], list[str]]:
    """The files of `folder`, and those of `place` that go; both are named in `place` until they are where they belong.

    Those go that weights of the folder replace, and those that a save left which was cut off.
    """
    place.mkdir(exist_ok=True)
    written = {path.name for path in folder.iterdir() if not path.is_dir()}
    families = {_family(name) for name in written} - {None}
    there = {path.name for path in place.iterdir() if path.is_file()} - written
    left = there & _unfinished(place)
    if left:
        names = ", ".join(sorted(left))
        LOGGER.warning("%s held files of a save that was cut off, which are removed: %s", place, names)
    gone = left | {name for name in there if _family(name) in families}
    (folder / UNFINISHED).write_text("".join(f"{name}\n" for name in sorted(written | gone)), encoding="utf-8")
    os.replace(folder / UNFINISHED, place / UNFINISHED)
    return sorted(written), sorted(gone)


def _unfinished(folder: Path) -> set[str]:
    """The names of files that a save was replacing when it ended, or is replacing."""
    try:
        return set((folder / UNFINISHED).read_text(encoding="utf-8").splitlines())
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _family(name: str) -> str | None:
    match = WEIGHTS.fullmatch(name)
    if match is None:
        return None
    return f"{match['stem']}.{match['variant']}" if match["variant"] else match["stem"]
