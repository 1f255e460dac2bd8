"""One file of a repository of the Hugging Face Hub, in huggingface_hub's cache and as the Hub states it.

huggingface_hub keeps and sends the files. Around it: what has arrived is compared with the hash that the Hub states,
once, and does not stay in the cache if it is something else; a Hub that is busy is asked again, after pauses that grow
and are told; one that is out of reach, or wants a longer pause than `LONGEST_PAUSE`, ends in a sentence at once.
"""

import hashlib
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before each further attempt
LONGEST_PAUSE = 300.0  # seconds that the Hub may ask to wait: it counts requests over five minutes
SILENCE = 120.0  # seconds that an answer may take where huggingface_hub would wait for ever
BEGINNINGS = 6  # how often a download may begin anew, where the Hub does not go on in the middle
BUSY = (408, 429, 500, 502, 503, 504)
COMMIT = re.compile(r"[0-9a-f]{40}")
T = TypeVar("T")
LOGGER = logging.getLogger("fdiff")


class Source(NamedTuple):
    """A folder or a repository, and how to reach it."""

    name: str | Path
    subfolder: str | None = None
    revision: str | None = None
    cache_dir: str | Path | None = None
    token: str | bool | None = None
    local_files_only: bool = False
    force_download: bool = False


class _Unreachable(Exception):
    """The Hub gives no answer."""


def download(source: Source, filename: str) -> Path | None:
    """The file in the cache, None if the repository does not have it; for errors see `fdiff.hub.fetch`."""
    from huggingface_hub import constants, errors

    path = f"{source.subfolder}/{filename}" if source.subfolder else filename
    cached, commit = _cached(source, path), COMMIT.fullmatch(source.revision or "")
    if source.local_files_only or constants.HF_HUB_OFFLINE:
        return _offline(source, filename, cached)
    if source.force_download:
        cached = None
    if cached is not None and commit:
        return cached
    try:
        # Who has a commit has just reached the Hub, and tries again; another name may be no repository at all.
        return patient(lambda: _current(source, path, cached), f"{filename} of {source.name}", commit is not None)
    except Exception as error:  # huggingface_hub lets those of its HTTP library and of the disk through
        if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
            return None
        raise _explained(source, filename, error) from error


def _cached(source: Source, path: str) -> Path | None:
    """Where the file is in the cache."""
    from huggingface_hub import errors, try_to_load_from_cache

    try:
        found = try_to_load_from_cache(str(source.name), path, source.cache_dir, source.revision)
    except errors.HFValidationError as error:
        raise ValueError(f"{source.name} is no id of a repository; check its name.") from error
    return Path(found) if isinstance(found, str) else None


def _offline(source: Source, filename: str, cached: Path | None) -> Path:
    if source.force_download:
        raise ValueError("force_download needs the network; unset HF_HUB_OFFLINE and local_files_only.")
    if cached is None:
        raise ConnectionError(
            f"{filename} of {source.name} is not in the cache; unset HF_HUB_OFFLINE and local_files_only once to "
            "download it, or correct the name if a folder was meant."
        )
    return cached


def _current(source: Source, path: str, cached: Path | None) -> Path:
    """The file as the Hub has it now, or the cached one where that is the same or the Hub does not answer."""
    from huggingface_hub import hf_hub_download

    for _ in range(2):  # what changes while it is sent, or is damaged on the way, is sent once more
        stated = _stated(source, path, cached)
        if cached is not None and (stated is None or f"/snapshots/{stated.commit_hash}/" in cached.as_posix()):
            return cached
        LOGGER.info("downloading %s of %s", path, source.name)
        with watched():
            found = Path(
                hf_hub_download(
                    str(source.name),
                    path,
                    revision=source.revision,
                    cache_dir=source.cache_dir,
                    token=source.token,
                    force_download=source.force_download,
                )
            )
        # The file is a link to one that is named by what the Hub stated, but where the system has no links.
        etag = Path(os.readlink(found)).name if found.is_symlink() else stated.etag
        if is_stated(found, etag):
            return found
        found.resolve().unlink(missing_ok=True)
        found.unlink(missing_ok=True)  # where it is a link to the former
    raise OSError(f"it came twice with another content than the Hub states, whose hash is {etag}")


def _stated(source: Source, path: str, cached: Path | None) -> Any:
    """What the Hub says of a file; None where it says nothing of use and the file is cached."""
    from huggingface_hub import constants, errors, get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(str(source.name), path, revision=source.revision)
    try:
        return get_hf_file_metadata(url, token=source.token, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except (errors.RevisionNotFoundError, errors.EntryNotFoundError):
        raise
    except Exception as error:
        if cached is not None:
            return None
        if isinstance(error, errors.HfHubHTTPError):
            raise
        raise _Unreachable from error


def is_stated(file: Path, etag: str | None) -> bool:
    """Whether the file has the hash that the Hub states: sha256 of a large one, git's of another; else unknown."""
    if etag is None or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", etag):
        return True
    if len(etag) == 64:
        return _digest(file, hashlib.sha256()) == etag
    # Mirrors of the Hub state sha1 of the content alone.
    return any(_digest(file, hashlib.sha1(head)) == etag for head in (b"blob %d\0" % file.stat().st_size, b""))


def _digest(file: Path, begun: Any) -> str:
    """The hash of what it has been given already and a file, which is never in memory as a whole."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: begun).hexdigest()


def patient(attempt: Callable[[], T], what: str, known: bool = False) -> T:
    """The result of an attempt, which is repeated while the Hub is busy or, if it is `known`, out of reach."""
    for pause in PAUSES:
        try:
            return attempt()
        except Exception as error:
            response = getattr(error, "response", None)
            wait = 0.0 if response is None else seconds_to_wait(response)
            busy = known and isinstance(error, _Unreachable) if response is None else response.status_code in BUSY
            if not busy or wait > LONGEST_PAUSE:
                raise
            wait = max(wait, pause)
            LOGGER.warning("%s: %s; trying again in %g s", what, reason(error), wait)
            time.sleep(wait)
    return attempt()


def seconds_to_wait(response: Any) -> float:
    """How long the Hub asks to leave it alone."""
    limit = re.search(r"\bt\s*=\s*(\d+)", response.headers.get("RateLimit", ""))
    after = response.headers.get("Retry-After", "")
    return max(float(limit[1]) if limit else 0.0, float(after) if after.isdigit() else 0.0)


@contextmanager
def watched() -> Iterator[None]:
    """Bound what huggingface_hub does by itself: waiting, sleeping and beginning anew without end."""
    from huggingface_hub import errors
    from huggingface_hub.utils import get_session

    beginnings: Counter[str] = Counter()

    def watch(response: Any, **_: Any) -> None:
        if response.status_code in BUSY and (wait := seconds_to_wait(response)) > LONGEST_PAUSE:
            raise errors.HfHubHTTPError(f"the Hub asks to wait {wait:g} s", response=response)
        if response.request.method == "GET" and response.status_code == 200:
            beginnings[str(response.url)] += 1
            if beginnings[str(response.url)] > BEGINNINGS:
                raise OSError(f"the connection broke {BEGINNINGS} times, and the Hub began anew each time")

    def limit(request: Any) -> None:
        limits = request.extensions.setdefault("timeout", {})
        limits |= {kind: limits.get(kind) or SILENCE for kind in ("connect", "read", "write", "pool")}

    session: Any = get_session()
    hooks = getattr(session, "event_hooks", None) or session.hooks  # of httpx; before huggingface_hub 1.0 of requests
    own = {"request": limit, "response": watch}
    for kind in own.keys() & hooks.keys():  # those of requests see responses only
        hooks[kind].append(own[kind])
    try:
        yield
    finally:
        for kind in own.keys() & hooks.keys():
            hooks[kind].remove(own[kind])


def _explained(source: Source, filename: str, error: Exception) -> Exception:
    """The same error as a sentence that names the repository and the cure."""
    from huggingface_hub import constants, errors

    name, hub = source.name, constants.ENDPOINT
    if isinstance(error, errors.GatedRepoError):
        return PermissionError(f"{name} is gated; accept its terms on {hub}/{name}, then run `hf auth login`.")
    if isinstance(error, errors.RepositoryNotFoundError):
        return FileNotFoundError(
            f"{name} is neither a folder here nor a repository that you may read on the Hub; "
            "check its name, or run `hf auth login` if it is private."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return FileNotFoundError(
            f"{name} has no revision {source.revision}; choose one of its branches, tags or commits."
        )
    if isinstance(error, _Unreachable | errors.LocalEntryNotFoundError):
        missing = "is to be downloaded anew" if source.force_download else "is not in the cache"
        return ConnectionError(
            f"{filename} of {name} {missing}; {hub} could not be reached ({reason(error)}): connect, or correct the "
            "name if a folder was meant."
        )
    response = getattr(error, "response", None)
    if response is not None and response.status_code in BUSY:
        wait = seconds_to_wait(response)
        cure = f"asks to wait {wait:g} s; try again after that" if wait else "is busy; try again later"
        return ConnectionError(f"{filename} of {name} could not be downloaded: {hub} {cure}.")
    return OSError(f"{filename} of {name} could not be downloaded ({reason(error)}); try again.")


def reason(error: BaseException) -> str:
    """The last cause of an error in a few words."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
