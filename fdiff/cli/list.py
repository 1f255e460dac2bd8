"""What `fdiff list` prints: the classes that checkpoints may name, and the checkpoints that are on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from fdiff import hub

KINDS = ("pipelines", "models", "schedulers", "shipped", "cached")


def listing(kind: str | None = None) -> str:
    """A table of that kind, or of every kind under its name; classes come with the first line of their docstring."""
    if kind is not None:
        return "\n".join(_table(_found(kind)))
    return "\n\n".join("\n  ".join([f"{one}:", *_table(_found(one))]) for one in KINDS)


def _found(kind: str) -> Mapping[str, str]:
    if kind == "shipped":
        folders = {name: hub.SHIPPED / name for name in hub.shipped()}
        return {name: _size(sum(file.stat().st_size for file in _files(folder))) for name, folder in folders.items()}
    return _cached() if kind == "cached" else _classes(kind)


def _classes(kind: str) -> Mapping[str, str]:
    """The registered classes by name, each once: what further names configs give it is known to the registry alone."""
    from fdiff import api, registry

    base = {"pipelines": api.DiffusionPipeline, "models": api.models.Model, "schedulers": api.Scheduler}[kind]
    return {cls.__name__: (cls.__doc__ or "").split("\n")[0] for cls in registry.classes(base)}


def _cached() -> Mapping[str, str]:
    """The repositories of models in the Hub's cache, largest first, with their sizes."""
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        found = scan_cache_dir().repos
    except CacheNotFound:
        return {}
    models = sorted((one for one in found if one.repo_type == "model"), key=lambda one: -one.size_on_disk)
    return {one.repo_id: _size(one.size_on_disk) for one in models}


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.is_file())


def _size(count: float) -> str:
    """Bytes, so that a person reads them: 1.4 MB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _table(rows: Mapping[str, str]) -> list[str]:
    width = max(map(len, rows), default=0)
    return [f"{name:{width}}  {said}".rstrip() for name, said in rows.items()] or ["none"]
