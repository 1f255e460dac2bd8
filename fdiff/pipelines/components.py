"""The components of a pipeline, one by one: loaded from and saved into the folders of the Hub's layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import fdiff.image_processors
import fdiff.models
import fdiff.schedulers
import fdiff.tokenizers
from fdiff import hub
from fdiff.models.model import Model
from fdiff.schedulers.scheduler import Scheduler

TOKENIZER_FILES = (
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


def find_component(name: str, source: str | Path) -> Any:
    """The model, scheduler or tokenizer class of that name. Raises ValueError where fdiff has none."""
    name = name.removeprefix("Flax")
    for package in (fdiff.models, fdiff.schedulers, fdiff.tokenizers, fdiff.image_processors):
        found = getattr(package, name, None)
        if isinstance(found, type):
            return found
    raise ValueError(f"{source} needs a {name}, which fdiff does not have")


def load_component(
    class_name: str, source: str | Path, name: str, where: dict[str, Any], weights: dict[str, Any]
) -> tuple[Any, Any]:
    """(component, params) of the class that model_index.json names; params is None for what has none.

    Args:
        class_name: a MultiControlNetModel stands for the models in the folders `name`, `name`_1 and so on, which come
            as a tuple with a list of their params.
        source, name: the component is in the source's folder of that name, or beside the index.
        where: keyword arguments of `hub.load_config`; weights: those of `Model.from_pretrained` beside them.
    """
    component = find_component(class_name.removeprefix("Multi"), source)
    if class_name.startswith("Multi"):
        folders = _numbered(name, lambda folder: hub.has_folder(source, folder, **where))
        return several([component.from_pretrained(source, subfolder=f, **where, **weights) for f in folders])
    place = {**where, "subfolder": name if hub.has_folder(source, name, **where) else None}
    if issubclass(component, Model):
        return _load_model(component, source, place, weights)
    if hasattr(component, "from_folder"):
        return component.from_folder(_tokenizer_folder(source, name, place)), None
    return component.from_pretrained(source, **place), None


def several(pairs: Any) -> tuple[tuple[Any, ...], list[Any]]:
    """(module, params) pairs as a tuple of modules and a list of params."""
    return tuple(module for module, _ in pairs), [params for _, params in pairs]


def save_component(component: Any, params: Any, folder: Path, name: str, variant: str | None) -> Any:
    """Write a component into the folder and return what model_index.json says of it."""
    if isinstance(component, Model):
        component.save_pretrained(folder / name, params, variant=variant)
        return ["transformers" if component.model_type else "diffusers", type(component).__name__]
    if isinstance(component, tuple) and component and isinstance(component[0], Model):
        for i, (module, tree) in enumerate(zip(component, params, strict=True)):
            module.save_pretrained(folder / (f"{name}_{i}" if i else name), tree, variant=variant)
        return ["diffusers", f"Multi{type(component[0]).__name__}"]
    if hasattr(component, "save_pretrained"):
        component.save_pretrained(folder / name)
        return ["diffusers" if isinstance(component, Scheduler) else "transformers", type(component).__name__]
    if component is None:
        return [None, None]
    return dict(enumerate(component)) if isinstance(component, tuple) else component


def setting(value: Any) -> Any:
    """A setting of model_index.json, where lists are components: a tuple is written as {"0": ..., "1": ...}."""
    return tuple(value.values()) if isinstance(value, dict) else value


def _load_model(component: Any, source: str | Path, place: dict[str, Any], weights: dict[str, Any]) -> tuple[Any, Any]:
    """The model in the dtype asked for, but an autoencoder for which float16 is too narrow in float32."""
    narrow = weights["dtype"] is not None and jnp.dtype(weights["dtype"]) == jnp.float16
    if not (narrow and hasattr(component, "force_upcast")):
        return component.from_pretrained(source, **place, **weights)
    module, params = component.from_pretrained(source, **place, **{**weights, "dtype": jnp.float32})
    return module, params if module.force_upcast else jax.tree.map(lambda leaf: leaf.astype(jnp.float16), params)


def _tokenizer_folder(source: str | Path, name: str, place: dict[str, Any]) -> Path:
    """Where the files of a tokenizer are, downloaded if need be."""
    where = hub.Source(source, **place)
    found = None
    for file in TOKENIZER_FILES:
        try:
            found = found or hub.fetch(where, file)
            hub.fetch(hub.pinned(where, found), file)
        except FileNotFoundError:  # no tokenizer has all of them; the tokenizer says which it needs
            continue
    if found is None:
        raise FileNotFoundError(f"{source} has no files of a tokenizer in its folder {name}; download it again")
    return found.parent


def _numbered(name: str, exists: Callable[[str], bool]) -> list[str]:
    folders = [name]
    while exists(f"{name}_{len(folders)}"):
        folders.append(f"{name}_{len(folders)}")
    return folders
