"""A model in one file: which of the tensors are its own, and by which config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from convert import families, single_file, transformer_families, weights
from convert.tensors import Tensor
from fdiff import hub, registry

CONFIG, INDEX = "config.json", "model_index.json"
NETWORKS = ("transformer", "unet")  # by which the others of a file are known


class Guess(NamedTuple):
    """What the tensors of a component say: its class and its config.json, or else why they do not."""

    cls: str | None = None
    config: families.Config | None = None
    reason: ValueError | None = None


def opened(
    cls: Any, file: Path, config: str | Path | None, subfolder: str | None, place: hub.Source
) -> tuple[Any, Mapping[str, Tensor]]:
    """The module of that class and its tensors, under the names of today, in a file.

    For the arguments and errors see `Model.from_single_file`; `place` says how to reach the Hub.
    """
    found = weights.tensors(file)
    try:
        parts = single_file.parts(found, file=file)
    except ValueError:
        if cls.model_type is None:
            raise
        parts = {"": dict(found)}  # of a text encoder alone, which has one name for everything
    guesses = {name: _guess(found, parts, name, file) for name in parts}
    name = _chosen(cls, guesses, subfolder, file)
    if config is None and len(parts) == 1 and (file.parent / CONFIG).is_file():
        config = file.parent
    if config is not None:
        where = _config(cls, place._replace(name=config), subfolder or name)
        module = cls.from_config(hub.read_json(where), file=where)
    else:
        guess = guesses[name]
        if guess.config is None:
            raise ValueError(f"{file} does not say how its {cls.__name__} is built; pass config=, a folder or a Hub id "
                             "with the config.json of one") from guess.reason
        module = cls.from_config(guess.config)
    return module.fitted(parts[name]), parts[name]


def _guess(found: Mapping[str, Tensor], parts: single_file.Parts, name: str, file: Path) -> Guess:
    """What the tensors of a file say of a component."""
    some = {one: part for one, part in parts.items() if one == name or one in NETWORKS}
    try:
        return Guess(*single_file.family(found, some, file=file).models[name])
    except ValueError as error:
        kind = transformer_families.kind(parts[name]).cls if name == "transformer" else None
        return Guess(kind, None, error)


def _chosen(cls: Any, guesses: Mapping[str, Guess], subfolder: str | None, file: Path) -> str:
    """The component that is of that class; ValueError where none is, or several are."""
    mine = [name for name, guess in guesses.items() if guess.cls == cls.__name__]
    mine = mine or [name for name, guess in guesses.items() if guess.cls is None]
    if not mine:
        kind = next(iter(guesses.values())).cls
        raise ValueError(f"{file} holds a {kind}, not a {cls.__name__}; load it with fdiff.{kind}.from_single_file")
    if len(mine) > 1 and subfolder not in mine:
        raise ValueError(f"{file} holds {' and '.join(sorted(mine))}; say with subfolder= which is wanted")
    return subfolder if subfolder in mine else mine[0]


def _config(cls: Any, place: hub.Source, name: str) -> Path:
    """The config.json of the component of that name, or of the class, in a folder or a repository."""
    try:
        return hub.fetch(place, *([f"{name}/{CONFIG}"] if name else []), CONFIG)
    except FileNotFoundError:
        index = hub.read_json(hub.fetch(place, INDEX))
        mine = [one for one, entry in index.items() if isinstance(entry, list) and len(entry) > 1
                and registry.lookup(entry[1], cls) is cls]  # fmt: skip
        if len(mine) != 1:
            raise
        return hub.fetch(place, f"{mine[0]}/{CONFIG}")
