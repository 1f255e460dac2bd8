"""Where the names in configs and indices become classes: `_class_name`, `architectures`, [library, class].

    fdiff.register(MyScheduler)                                   under its own name
    fdiff.register(DDIMScheduler, "DDIMParallelScheduler")        under others, too

Whatever is registered loads and saves like fdiff's own: schedulers, models, tokenizers, image processors, pipelines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

Class = TypeVar("Class", bound=type)
Config = Mapping[str, Any]


class Entry(NamedTuple):
    """A class, and for which configs its name means it: several classes share Transformer2DModel."""

    cls: type
    when: Callable[[Config], bool] | None = None


_ENTRIES: dict[str, list[Entry]] = {}  # the only thing that importing fdiff fills, by the name in a config


def register(cls: Class, *names: str, when: Callable[[Config], bool] | None = None) -> Class:
    """Let configs and indices mean this class by `names`, or by its own name; returns it, so that it may decorate.

    Args:
        cls: a Scheduler, Model, tokenizer or DiffusionPipeline.
        names: in place of its own.
        when: tells by its config whether an entry of that name is this class, where several share the name.

    A class registered later under the same name goes before the earlier ones.
    """
    if not isinstance(cls, type):
        raise ValueError(f"register takes a class, not {cls!r}")
    for name in names or (cls.__name__,):
        _ENTRIES.setdefault(name, []).insert(0, Entry(cls, when))
    return cls


def register_all(classes: Mapping[str, type], base: type) -> None:
    """Register those of the classes that derive from `base`, each under its key."""
    for name, cls in classes.items():
        if isinstance(cls, type) and issubclass(cls, base) and cls is not base:
            register(cls, name)


def known(base: type = object) -> Iterator[tuple[str, type]]:
    """(name, class) of all that are registered and derive from `base`, in the order of their names."""
    for name, entries in sorted(_ENTRIES.items()):
        for entry in entries[::-1]:
            if issubclass(entry.cls, base):
                yield name, entry.cls


def classes(base: type = object) -> Iterator[Any]:
    """All that are registered and derive from `base`, each once, in the order of their names."""
    return (cls for name, cls in known(base) if name == cls.__name__ and cls is not base)


def lookup(name: str | None, base: type = object, config: Config | None = None) -> Any:
    """The class of that name that derives from `base`, old spellings such as FlaxPNDMScheduler included, or None."""
    for entry in _ENTRIES.get(str(name or "").removeprefix("Flax"), ()):
        if issubclass(entry.cls, base) and (entry.when is None or entry.when(config or {})):
            return entry.cls
    return None


def shared(name: str) -> bool:
    """Whether classes share that name, so that only a config tells which one it means."""
    return any(entry.when is not None for entry in _ENTRIES.get(name, ()))


def find_component(name: str, source: str | Path, config: Config | None = None) -> Any:
    """The model, scheduler, tokenizer or processor class of that name. Raises ValueError where there is none."""
    found = lookup(name, config=config)
    if found is None:
        raise ValueError(f"{source} needs a {name}, which fdiff does not have; where another package does, import it "
                         "first, so that it calls fdiff.register")
    return found
