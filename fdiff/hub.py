"""Where configs and weights come from: a folder, or a repository of the Hugging Face Hub.

Every `from_pretrained` says where with the same words:

    source            a folder, a repository id such as "google/ddpm-cat-256", or the name of a model that fdiff ships
    subfolder         of it, such as "unet"
    revision          a branch, tag or commit; "main" if not given
    variant           the infix of the weights file: "fp16" for diffusion_pytorch_model.fp16.safetensors
    cache_dir         where downloads are kept; huggingface_hub's own place, or that of HF_HOME, if not given
    token             for private and gated repositories; the one of `hf auth login` if not given
    local_files_only  no network: only what is in the cache, as with HF_HUB_OFFLINE=1
    force_download    download again what is in the cache, which may be damaged

Files come one by one, and only those that are needed.
"""

import difflib
import json
import logging
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from convert import json_text
from convert.files import check_whole, reading, replacing, staged
from fdiff import downloads
from fdiff.downloads import Source, download, patient, reason

__all__ = [
    "Pretrained",
    "Source",
    "available_variant",
    "check_name",
    "class_name",
    "fetch",
    "fetch_weights",
    "folder_of",
    "has_folder",
    "load_config",
    "pinned",
    "read_json",
    "reading",
    "reason",
    "replacing",
    "shipped",
    "staged",
    "write_json",
]

REPOSITORY = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
COMMIT = re.compile(r"/snapshots/([0-9a-f]{40})/")
LISTING_TIMEOUT = 10.0  # seconds
SINGLE_FILES = (".safetensors", ".sft", ".ckpt", ".gguf", ".msgpack")
SHIPPED = Path(__file__).with_name("checkpoints")  # models that fdiff ships, a folder each


class Pretrained:
    """A base of what is read from files alone and has no weights, such as a tokenizer."""

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        subfolder: str | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> Self:
        """Read it from a folder or a repository; see `fdiff.hub` for the words and the errors."""
        return cls.from_source(Source(source, subfolder, revision, cache_dir, token, local_files_only, force_download))

    @classmethod
    def from_source(cls, place: Source) -> Self:
        """Read the files of a place; each class says which."""
        raise NotImplementedError


def load_config(
    source: str | Path,
    filename: str,
    *,
    subfolder: str | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> dict[str, Any]:
    """A JSON file of a folder or a repository."""
    place = Source(source, subfolder, revision, cache_dir, token, local_files_only, force_download)
    return read_json(fetch(place, filename))


def fetch(source: Source, *filenames: str) -> Path:
    """The first of those files that there is, downloaded if need be.

    Raises FileNotFoundError where there is none, no such repository or no such revision, PermissionError for
    a gated repository, ConnectionError where it is not in the cache and the Hub is out of reach.
    """
    unreachable = None
    for filename in filenames:
        try:
            folder = folder_of(source.name)
            path = _file_in(folder / (source.subfolder or ""), filename) if folder else download(source, filename)
        except ConnectionError as error:
            if source.force_download:
                raise
            # Another of the files may be in the cache: look for it, without waiting for the network again.
            unreachable = unreachable or error
            source = source._replace(local_files_only=True)
            continue
        if path is not None:
            return path
    if unreachable is not None:
        raise unreachable
    place = "/".join(str(part) for part in (source.name, source.subfolder) if part)
    tried = " nor ".join(filenames)
    raise FileNotFoundError(f"{place} has no {tried}; check its name, the subfolder and the variant.")


def fetch_weights(source: Source, stem: str, variant: str | None = None) -> Path:
    """The index of `stem`[.`variant`] with all its shards, or else the one file: safetensors before torch's pickles
    and those before GGUF.

    A repository of transformers' models has stem "model", and calls its pickle "pytorch_model". For errors
    see `fetch`; ValueError for an index that is damaged or leaves its folder.
    """
    from convert import weights  # which brings jax: what a command line says wrongly is known before

    infix = f".{variant}" if variant else ""
    pickle = "pytorch_model" if stem == "model" else stem
    safe = (weights.index_name(stem, variant), f"{stem}{infix}.safetensors")
    path = None
    if downloads.COMMIT.fullmatch(source.revision or "") and not source.force_download:
        with suppress(ConnectionError, FileNotFoundError):  # a commit never gets an index that it did not have
            path = fetch(source._replace(local_files_only=True), *safe)
    path = path or fetch(source, *safe, weights.index_name(pickle, variant, "bin"), f"{pickle}{infix}.bin",
                         f"{stem}{infix}.gguf")  # fmt: skip
    if path.suffix == ".json":
        for shard in weights.shards(path):
            fetch(pinned(source, path), shard)
    return path


def pinned(source: Source, path: Path) -> Source:
    """The same source at the commit that `path` was downloaded from, so that later files fit to it."""
    match = COMMIT.search(path.as_posix())
    return source if match is None else source._replace(revision=match[1])


def has_folder(
    source: str | Path,
    name: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> bool:
    """Whether a pipeline keeps that component in a folder of its own; old ones have it beside the index."""
    place = Source(source, None, revision, cache_dir, token, local_files_only)
    return (_here(place) / name).is_dir() or any(file.startswith(f"{name}/") for file in _on_hub(place))


def available_variant(source: Source, variant: str | None) -> str | None:
    """The variant, where a pipeline or its subfolder has weights of it; None, for the plain ones, elsewhere.

    Raises FileNotFoundError for a whole pipeline without it.
    """
    if variant is None:
        return None
    folder = _here(source)
    here = [path.relative_to(folder).as_posix() for pattern in ("*", "*/*") for path in folder.glob(pattern)]
    start = f"{source.subfolder}/" if source.subfolder else ""

    def found(files: list[str]) -> bool:
        return any(file.startswith(start) and f".{variant}." in file for file in files)

    if found(here) or found(_on_hub(source)):
        return variant
    if source.subfolder is None:
        raise FileNotFoundError(f"{source.name} has no weights of the variant {variant}; leave variant out.")
    said = "%s of %s has no weights of the variant %s; its plain ones are read"
    logging.getLogger("fdiff").info(said, source.subfolder, source.name, variant)
    return None


def _here(source: Source) -> Path:
    """The folder, or where the cache keeps the repository of a pipeline."""
    index = source._replace(subfolder=None, force_download=False)
    return folder_of(source.name) or fetch(index, "model_index.json").parent


def _on_hub(source: Source) -> list[str]:
    """The files of a repository; none of a folder, and where the Hub is out of reach: what is in the cache decides."""
    if source.local_files_only or folder_of(source.name):
        return []
    from huggingface_hub import HfApi

    revision = pinned(source, _here(source) / "model_index.json").revision
    try:
        api, name = HfApi(token=source.token), str(source.name)
        info = patient(lambda: api.model_info(name, revision=revision, timeout=LISTING_TIMEOUT), f"the files of {name}")
        return [file.rfilename for file in info.siblings or ()]
    except Exception:
        return []


def folder_of(name: str | Path) -> Path | None:
    """The folder that a source is, or the one of a model that fdiff ships; None for the id of a repository.

    Raises FileNotFoundError for a file, and for what is none of these.
    """
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        return path
    if path.is_file():
        raise FileNotFoundError(
            f"{name} is a file, and a folder or the id of a repository is wanted; load a checkpoint in one file with "
            "from_single_file, an adapter with fdiff.adapters."
        )
    if isinstance(name, Path) or not REPOSITORY.fullmatch(name):
        raise FileNotFoundError(f"{name} is neither a folder nor the id of a repository; check its name.")
    if name in shipped():
        return SHIPPED / name
    near = difflib.get_close_matches(name, shipped(), n=1, cutoff=0.8)
    if near and "/" not in name:
        raise FileNotFoundError(f"there is no model {name}; {near[0]} is one that fdiff ships, if that is meant.")
    return None


def check_name(source: str | Path) -> None:
    """Raise FileNotFoundError for what can be known to be no folder, no id of a repository and no single file."""
    path = Path(os.path.expanduser(source))
    if path.suffix not in SINGLE_FILES and not path.is_file():
        folder_of(source)


def shipped() -> list[str]:
    """The names of the models that fdiff ships."""
    return sorted(folder.name for folder in SHIPPED.iterdir() if (folder / "model_index.json").is_file())


def _file_in(folder: Path, filename: str) -> Path | None:
    path = folder / filename
    if not path.is_file():
        return None
    check_whole(path)
    return path


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; ValueError names the file where it is none."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; check its name.")
    try:
        with reading(path):
            value = json_text.read(path)
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); correct it or download it again.") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object; correct it or download it again.")
    return value


def class_name(config: dict[str, Any], file: Path) -> str:
    """The class that a config.json describes: diffusers and transformers say it in two ways. ValueError for none."""
    found = config.get("_class_name") or config.get("architectures")
    name = found[0] if isinstance(found, list) and found else found
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"{file} does not say of which class it is; add _class_name to it.")
    return name


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file, moved into place when it is whole."""
    with replacing(path) as part:
        part.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
