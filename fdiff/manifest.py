"""What a model consists of: its components, and where their weights lie, of which only the headers are read."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from convert import single_file as convert_single_file
from convert import weights
from convert.tensors import Tensor
from fdiff import hub, registry, single_file
from fdiff.models.model import CONFIG, Model
from fdiff.pipelines.components import INDEX, read_index
from fdiff.pipelines.pipeline import OPT_IN
from fdiff.schedulers.scheduler import FILE as SCHEDULER_CONFIG
from fdiff.sources import is_single_file


class Part(NamedTuple):
    """A component: its name, "" where it is alone, and its class.

    module: None for what is no model, or one that fdiff does not have. tensors: None where the weights are not here.
    files: what is read of it but a vocabulary. options: those of a scheduler.
    """

    name: str
    kind: str
    module: Any = None
    tensors: Mapping[str, Tensor] | None = None
    files: tuple[Path, ...] = ()
    options: Mapping[str, Any] | None = None


class Manifest(NamedTuple):
    """The class of a pipeline, a model or a scheduler, what it consists of, and its commit if it is of the Hub."""

    kind: str
    parts: tuple[Part, ...]
    revision: str | None = None
    listing: Path | None = None  # the model_index.json of a pipeline


def read(
    source: str | Path, *, revision: str | None = None, variant: str | None = None, download: bool = True,
    config: str | Path | None = None,
) -> Manifest:  # fmt: skip
    """The manifest of a folder, a repository or a single file.

    config: where a single file takes its configs from, see `fdiff.single_file.load`.
    download: also the weights of a repository where they are not in the cache, for their headers.

    For errors see `fdiff.hub.fetch`.
    """
    if is_single_file(source):
        return _of_file(single_file.find(source, single_file.ANYWHERE), config, download)
    place = hub.Source(source, None, revision)
    file = hub.fetch(place, INDEX, CONFIG, SCHEDULER_CONFIG)
    place = hub.pinned(place, file)
    said = read_index(file) if file.name == INDEX else hub.read_json(file)
    kind = said.get("_class_name") or (said.get("architectures") or ["?"])[0]
    if file.name == CONFIG:
        return Manifest(kind, (_model("", kind, place, variant, download),), place.revision)
    if file.name == SCHEDULER_CONFIG:
        return Manifest(kind, (Part("", kind, None, None, (file,), said),), place.revision)
    listed = ((name, entry[1]) for name, entry in said.items() if isinstance(entry, list) and entry[1])
    hub.available_variant(place, variant)
    return Manifest(kind, tuple(_part(*one, place, variant, download) for one in listed), place.revision, file)


def _part(name: str, kind: str, place: hub.Source, variant: str | None, download: bool) -> Part:
    """A component of a pipeline, in its folder or, of old ones, beside the index."""
    here = place._replace(subfolder=name if hub.has_folder(place.name, name, revision=place.revision) else None)
    if kind in dict(registry.known(Model)):
        return _model(name, kind, here, variant, download)
    if "Scheduler" in kind:
        file = hub.fetch(here, SCHEDULER_CONFIG)
        return Part(name, kind, None, None, (file,), hub.read_json(file))
    return Part(name, kind)


def _model(name: str, kind: str, place: hub.Source, variant: str | None, download: bool) -> Part:
    file = hub.fetch(place, CONFIG)
    config = hub.read_json(file)
    cls = registry.lookup(kind, Model, config)
    if cls is None:
        return Part(name, kind)
    module = cls.from_config(config, file=file)
    own = hub.available_variant(place, variant) if place.subfolder else variant
    try:
        found = hub.fetch_weights(place._replace(local_files_only=not download), cls.weights_name, own)
    except ConnectionError:
        if download:
            raise
        return Part(name, kind, module, None, (file,))
    shards = [found.parent / shard for shard in weights.shards(found)] if found.suffix == ".json" else [found]
    tensors = weights.tensors(found)
    return Part(name, kind, module.fitted(tensors), tensors, (file, *shards))


def _of_file(file: Path, config: str | Path | None, download: bool) -> Manifest:
    found = weights.tensors(file)
    parts = convert_single_file.parts(found, file=file)
    family = single_file.described(file, found, parts, config=config)
    place = single_file.ANYWHERE._replace(name="" if config is None else config)
    listing = None if config is None else single_file.index_file(place)
    listed = [
        Part(name, kind, registry.find_component(kind, file, entry).from_config(entry), parts[name], (file,))
        for name, (kind, entry) in family.models.items()
    ]
    if family.scheduler:
        options = dict(family.scheduler)
        listed.append(Part("scheduler", str(options.get("_class_name")), None, None, (), options))
    if listing is not None:  # what the file lacks
        index = {name: entry for name, entry in read_index(listing).items() if isinstance(entry, list) and entry[1]}
        place = hub.pinned(place, listing)
        others = [_part(name, entry[1], place, None, download) for name, entry in index.items()
                  if name not in {*parts, *OPT_IN} and entry[1] in dict(registry.known(Model))]  # fmt: skip
        listed += others
    return Manifest(family.pipeline or listed[0].kind, tuple(listed))


def digest(manifest: Manifest) -> str:
    """The sha256 of the one file that holds everything, or else of the hashes of all files, in the order of the parts:
    another one where weights, configs or the scheduler have changed.
    """
    files = dict.fromkeys(file for part in manifest.parts for file in part.files)
    hashes = [file_hash(file) for file in ([manifest.listing] if manifest.listing else []) + list(files)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def file_hash(file: str | Path) -> str:
    """The sha256 of a file, which the cache of the Hub has in the name of large ones."""
    name = Path(file).resolve().name
    if re.fullmatch("[0-9a-f]{64}", name):
        return name
    found = os.stat(file)
    return _read_hash(os.fspath(file), found.st_mtime_ns, found.st_size)


@functools.lru_cache(maxsize=64)
def _read_hash(file: str, modified: int, size: int) -> str:
    """The sha256 of a file as it is now, so that checking a picture's model and telling it anew read it once."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def loaded(parts: Iterable[Part], without: Iterable[str]) -> list[Part]:
    """The models among the parts, but those of these names."""
    return [part for part in parts if part.module is not None and part.name not in without]
