"""The components of a pipeline, one by one: loaded from and saved into the folders of the Hub's layout."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import fdiff.image_processors
import fdiff.models
import fdiff.schedulers
import fdiff.tokenizers  # noqa: F401  which register what a component can be
from convert.packed import QUANTIZED
from convert.weights import floating
from fdiff import hub, registry
from fdiff.models.model import CONFIG, Model
from fdiff.registry import find_component
from fdiff.schedulers.scheduler import Scheduler
from fdiff.stacked import stacked_in_place

INDEX = "model_index.json"
DIFFUSERS_VERSION = "0.42.1"  # whose layout is written: diffusers asks an index for it
# What diffusers calls several models of one class, which lie in the folders NAME, NAME_1 and so on.
SEVERAL = {
    "MultiControlNetModel": "ControlNetModel",
    "MultiControlNetUnionModel": "ControlNetUnionModel",
    "SD3MultiControlNetModel": "SD3ControlNetModel",
    "FluxMultiControlNetModel": "FluxControlNetModel",
    "QwenImageMultiControlNetModel": "QwenImageControlNetModel",
    "MultiAdapter": "T2IAdapter",
}


def read_index(file: Path) -> dict[str, Any]:
    """A model_index.json, in which options that are lists of numbers are tuples, since lists are components.

    Raises ValueError for a list of anything else that is no [library, class].
    """
    index = hub.read_json(file)
    for name, entry in list(index.items()):
        if name.startswith("_") or not isinstance(entry, list):
            continue
        if entry and all(isinstance(part, int | float) for part in entry):
            index[name] = tuple(entry)
        elif len(entry) != 2 or not all(part is None or isinstance(part, str) for part in entry):
            raise _malformed(file, name, entry)
    return index


def write_index(folder: Path, kind: str, entries: Mapping[str, Any]) -> None:
    """Write the model_index.json of a pipeline of that class."""
    hub.write_json(folder / INDEX, {"_class_name": kind, "_diffusers_version": DIFFUSERS_VERSION, **entries})


def listed(index: Mapping[str, Any], kind: Any, file: Path) -> dict[str, Any]:
    """The entries of an index that are not null. Raises ValueError for a component in need that is no such entry."""
    needed = {field.name for field in dataclasses.fields(kind) if required(field)}
    for name in needed & index.keys():
        if not isinstance(index[name], list | tuple | dict | None):
            raise _malformed(file, name, index[name])
    return {
        name: entry
        for name, entry in index.items()
        if not (name.startswith("_") or entry is None or (isinstance(entry, list) and entry[1] is None))
    }


def check_complete(kind: Any, given: Mapping[str, Any], source: Any, cure: str) -> None:
    """Raise ValueError unless `given` has all that a pipeline of that class needs."""
    for field in dataclasses.fields(kind):
        if required(field) and given.get(field.name) is None:
            raise ValueError(f"{source} has no {field.name}, which {kind.__name__} needs; {cure}")


def required(field: dataclasses.Field[Any]) -> bool:
    """Whether a pipeline cannot do without that component: it has no default, and may not be None."""
    without = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    return without and not str(field.type).endswith("| None")


def completed(kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The components, with None for those that have no default and may be None."""
    missing = [field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING]
    return {**{name: None for name in missing if name not in given}, **given}


def _malformed(file: Path, name: str, entry: Any) -> ValueError:
    return ValueError(f"{file} says that {name} is {entry!r}; correct it to [library, class] or [null, null]")


def load_component(
    class_name: str, source: str | Path, name: str, where: dict[str, Any], load: Callable[..., tuple[Any, Any]]
) -> tuple[Any, Any]:
    """(component, params) of the class that model_index.json names; params is None for what has none.

    Args:
        class_name: one of SEVERAL stands for the models in the folders `name`, `name`_1 and so on, which come as a
            tuple with a list of their params.
        source, name: the component is in the source's folder of that name, or beside the index.
        where: keyword arguments of `hub.load_config`.
        load: gives that pair, from a class, the source, `where` and a subfolder.

    Raises FileNotFoundError where it is neither in its folder nor beside the index.
    """
    if class_name in SEVERAL:
        component = find_component(SEVERAL[class_name], source)
        folders = _numbered(name, lambda folder: hub.has_folder(source, folder, **where))
        return several([load(component, source, subfolder=folder, **where) for folder in folders])
    place = {**where, "subfolder": name if hub.has_folder(source, name, **where) else None}
    try:
        config = hub.load_config(source, CONFIG, **place) if registry.shared(class_name) else None
        component = find_component(class_name, source, config)
        return load(component, source, **place)
    except FileNotFoundError as error:
        if place["subfolder"] is not None:
            raise
        raise FileNotFoundError(
            f"{source} has no folder {name}, though its {INDEX} lists one; download or copy it again"
        ) from error


def several(pairs: Any) -> tuple[tuple[Any, ...], list[Any]]:
    """(module, params) pairs as a tuple of modules and a list of params."""
    return tuple(module for module, _ in pairs), [params for _, params in pairs]


def save_component(component: Any, params: Any, folder: Path, name: str, variant: str | None = None) -> Any:
    """Write a component into the folder and return what model_index.json says of it."""
    if isinstance(component, Model):
        component.save_pretrained(folder / name, params, variant=variant)
        return [_library(component), type(component).__name__]
    if isinstance(component, tuple) and component and isinstance(component[0], Model):
        for i, (module, tree) in enumerate(zip(component, params, strict=True)):
            module.save_pretrained(folder / (f"{name}_{i}" if i else name), tree, variant=variant)
        return ["diffusers", next(many for many, one in SEVERAL.items() if one == type(component[0]).__name__)]
    if hasattr(component, "save_pretrained"):
        component.save_pretrained(folder / name)
        return [_library(component), type(component).__name__]
    if component is None:
        return [None, None]
    if isinstance(component, tuple) and component and all(isinstance(part, int | float) for part in component):
        return list(component)
    return dict(enumerate(component)) if isinstance(component, tuple) else component


def _library(component: Any) -> str:
    """Where diffusers looks for the class of a component: in itself, in transformers, in a pipeline's module, or in the
    package that it comes from.
    """
    package = type(component).__module__.partition(".")[0]
    if package != "fdiff":
        return package
    own = isinstance(component, Scheduler) or (isinstance(component, Model) and not component.model_type)
    return getattr(component, "library", "diffusers" if own else "transformers")


def setting(value: Any) -> Any:
    """A setting of model_index.json, where lists are components: a tuple is written as {"0": ..., "1": ...}.

    diffusers sorts the keys as texts, "10" before "2".
    """
    numbered = sorted(value, key=lambda key: (len(key), key)) if isinstance(value, dict) else ()
    return tuple(value[key] for key in numbered) if isinstance(value, dict) else value


def load_model(component: Any, source: str | Path, **how: Any) -> tuple[Any, Any]:
    """What `open_model` opens, with its parameters; what is no model is loaded without."""
    model, load = open_model(component, source, **how)
    return model, None if load is None else load()


def open_model(
    component: Any, source: str | Path, *, variant: str | None, dtype: Any, sharding: Any, quantize: str | None = None,
    streamed: bool = False, stack_blocks: bool = False, **place: Any,
) -> tuple[Any, Callable[[], Any] | None]:  # fmt: skip
    """The model, and what reads its parameters, None for what is no model.

    These are in the dtype asked for, but an autoencoder for which float16 is too narrow in float32. Its weights are
    those of the variant if it has such ones.
    """
    if not issubclass(component, Model):
        return component.from_pretrained(source, **place), None
    if stack_blocks:
        how: dict[str, Any] = {"variant": variant, "dtype": dtype, "sharding": sharding, "quantize": quantize}
        model, read = open_model(component, source, streamed=streamed, **how, **place)
        assert read  # it is a model
        return model, lambda: stacked_in_place(read())
    where = hub.Source(source, **place)
    options: dict[str, Any] = {"variant": hub.available_variant(where, variant), "sharding": sharding}
    if str(where.subfolder).startswith(QUANTIZED):
        options |= {"quantize": quantize, "streamed": streamed}
    if not (floating(dtype) == jnp.float16 and hasattr(component, "force_upcast")):
        opened: tuple[Any, Callable[[], Any]] = component.opened(where, dtype=dtype, **options)
        return opened
    module, load = component.opened(where, dtype=jnp.float32, **options)
    if module.force_upcast:
        return module, load
    return module, lambda: jax.tree.map(lambda leaf: leaf.astype(jnp.float16), load())


def _numbered(name: str, exists: Callable[[str], bool]) -> list[str]:
    """The folders that are there. What diffusers writes for adapters is adapter, adapter_1, adapter_1_2 and so on."""
    folders = [name]
    while True:
        following = (f"{before}_{len(folders)}" for before in (name, folders[-1]))
        found = next((folder for folder in following if exists(folder)), None)
        if found is None:
            return folders
        folders.append(found)
