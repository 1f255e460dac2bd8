"""Checkpoints written anew: safetensors, names and layout of today."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from convert import flax_weights, packed, weights
from convert.lazy import lazy
from convert.tensors import Tensor
from fdiff import edm_checkpoint, hub, single_file
from fdiff.models.model import CONFIG, Model
from fdiff.pipelines.components import (
    INDEX,
    check_complete,
    listed,
    load_component,
    read_index,
    save_component,
    write_index,
)
from fdiff.pipelines.pipeline import OPT_IN, PARTS, find_pipeline
from fdiff.registry import find_component
from fdiff.schedulers.scheduler import FILE as SCHEDULER_CONFIG
from fdiff.schedulers.scheduler import Scheduler

FLAX_ONLY = ("dtype", "split_head_dim", "use_memory_efficient_attention")  # options of Flax models alone

HUB_NAMES = ("diffusion_pytorch_model.", "pytorch_model.", "model.")  # what weights are called beside a config.json

Progress = Callable[[int, int], object]  # bytes written, bytes in all


class Weights(NamedTuple):
    """What a file, or the files of an index, hold; nothing is read yet."""

    file: Path
    tensors: dict[str, Tensor]


class Checkpoint(NamedTuple):
    """What is to be written: the class of a pipeline, None for a model alone, and what its index lists.

    parts: name -> (component or setting, its weights or those of several; None for what has none). The name of a
    model alone is empty, so that it is written beside nothing.
    """

    pipeline: str | None
    parts: dict[str, tuple[Any, Any]]


def convert(
    source: str | Path,
    folder: str | Path,
    *,
    dtype: Any = None,
    quantize: str | None = None,
    variant: str | None = None,
    config: str | Path | None = None,
    tokenizer: str | Path | None = None,
    prediction_type: str | None = None,
    ema: bool = False,
    progress: Progress = lambda done, total: None,
) -> str:
    """Write a checkpoint of any layout in the Hub's layout of today; all of the folder appears, or nothing.

    Returns the class of what was written: a pipeline, or a model alone where the source is no more.

    Args:
        source: a pipeline or model on the Hub or in a folder, its weights .safetensors or torch's .bin, or else HF's
            own Flax weights; the weights file of such a model with its config.json beside it; or a single file of
            Stable Diffusion, as `fdiff.single_file.load` takes it.
        folder: where to write.
        dtype: of the weights that are written, those of an autoencoder too for which `from_pretrained` widens
            float16; None keeps what the file has.
        quantize: "int8", "int4" or "float8" writes the networks and the text encoders so, as `from_pretrained` keeps
            them; what it leaves wide becomes `dtype`.
        variant: which weights of a repository to read, such as "fp16"; a model without such ones has its plain ones.
        config, tokenizer, prediction_type, ema: for single files, see `fdiff.single_file.load`.
        progress: called with the bytes written and those in all; one tensor at a time is in memory.

    Raises ValueError and OSError that name what is wrong with the source.
    """
    if not str(folder):
        raise ValueError("the folder to write is empty; name one, or . for the current folder")
    if Path(folder).exists() and not Path(folder).is_dir():
        raise ValueError(f"{folder} is a file; name a folder to write.")
    weights.floating(dtype)
    packed.chosen(("kernel",), (), quantize)
    path = Path(os.path.expanduser(source))
    options = {"config": config, "tokenizer": tokenizer, "prediction_type": prediction_type, "ema": ema}
    given = [name for name, value in options.items() if value]
    if path.is_file() or path.suffix in hub.SINGLE_FILES:
        if variant is not None:
            raise ValueError("variant is for repositories and folders; leave it out for a single file")
        beside = path.parent / CONFIG
        if path.suffix == ".npy":
            loaded = edm_checkpoint.inspect(path)
            found = Checkpoint(type(loaded.pipe).__name__, {
                field.name: (getattr(loaded.pipe, field.name), None) for field in dataclasses.fields(loaded.pipe)
            } | {"egnn": (loaded.pipe.egnn, Weights(path, loaded.tensors))})
        elif path.suffix == ".msgpack" or (path.name.startswith(HUB_NAMES) and beside.is_file() and not given):
            found = Checkpoint(None, {"": _described(_class(beside), beside, path)})
        else:
            found = _single(source, options)
    elif given:
        raise ValueError(f"{given[0]} is for single files; leave it out for {source}")
    else:
        found = _repository(source, variant)
    _write(folder, found, dtype, quantize, progress)
    return found.pipeline or type(found.parts[""][0]).__name__


def _single(source: str | Path, options: dict[str, Any]) -> Checkpoint:
    """What a single file holds: a pipeline, or one model with its tokenizer."""
    file = single_file.find(source, single_file.ANYWHERE)
    opened = single_file.inspect(file, **options)
    found = {name: (model, Weights(file, opened.params[name])) for name, model in opened.models.items()}
    tokenizers = {name: (tokenizer, None) for name, tokenizer in opened.tokenizers.items()}
    if len(found) == 1:
        return Checkpoint(None, {"": next(iter(found.values())), **tokenizers})
    if opened.pipeline is None:
        raise ValueError(f"{source} holds a {' and a '.join(found)}, which are no pipeline; {PARTS}")
    kind = find_pipeline(opened.pipeline, source)
    others = {**opened.options, "scheduler": opened.scheduler}
    if options["config"] is not None:  # what the file lacks
        place = hub.Source(options["config"])
        listing = hub.fetch(place, INDEX)
        place = hub.pinned(place, listing)
        for name, entry in listed(read_index(listing), kind, listing).items():
            if isinstance(entry, list) and name not in {*found, *tokenizers, "scheduler", *OPT_IN}:
                found[name] = load_component(entry[1], place.name, name, {"revision": place.revision}, _loader(None))
    if "unet" in found and "text_encoder_2" not in found:
        others |= {"safety_checker": None, "feature_extractor": None}
    parts = {**found, **tokenizers, **{name: (other, None) for name, other in others.items()}}
    check_complete(kind, parts, source, single_file.cure(opened) or PARTS)
    return Checkpoint(opened.pipeline, parts)


def _repository(source: str | Path, variant: str | None) -> Checkpoint:
    """What a repository or a folder holds: a pipeline with all that its index lists, a model or a scheduler."""
    place = hub.Source(source)
    file = hub.fetch(place, INDEX, CONFIG, SCHEDULER_CONFIG)
    place = hub.pinned(place, file)
    if file.name == SCHEDULER_CONFIG:
        return Checkpoint(None, {"": (Scheduler.from_pretrained(source), None)})
    if file.name == CONFIG:
        return Checkpoint(None, {"": _open(_class(file), place, variant)})
    index = read_index(file)
    kind = find_pipeline(str(index.get("_class_name") or "").removeprefix("Flax"), source)
    entries = listed(index, kind, file)
    check_complete(kind, entries, source, "choose another model")
    hub.available_variant(place, variant)
    load = _loader(variant)
    parts: dict[str, tuple[Any, Any]] = {}
    for name, entry in index.items():
        if name in entries and isinstance(entry, list):
            parts[name] = load_component(entry[1], source, name, {"revision": place.revision}, load)
        elif not name.startswith("_"):
            parts[name] = (entries.get(name), None)
    return Checkpoint(kind.__name__, parts)


def _loader(variant: str | None) -> Callable[..., tuple[Any, Weights | None]]:
    """What opens a component of a repository: (component, its weights)."""

    def load(component: Any, source: str | Path, **where: Any) -> tuple[Any, Weights | None]:
        if not issubclass(component, Model):
            return component.from_pretrained(source, **where), None
        place = hub.Source(source, **where)
        return _open(component, place, hub.available_variant(place, variant))

    return load


def _class(file: Path) -> Any:
    """The model that a config.json describes. ValueError for another class."""
    config = hub.read_json(file)
    found = find_component(hub.class_name(config, file), file, config)
    if not issubclass(found, Model):
        raise ValueError(f"{file} describes a {found.__name__}, which is no model")
    return found


def _open(component: Any, place: hub.Source, variant: str | None) -> tuple[Model, Weights]:
    """A model of that class with its weights, those of torch before those of Flax."""
    config = hub.fetch(place, CONFIG)
    try:
        file = hub.fetch_weights(hub.pinned(place, config), component.weights_name, variant)
    except FileNotFoundError:
        flax = next((file for name in flax_weights.NAMES if (file := config.parent / name).is_file()), None)
        if flax is None:
            raise
        file = flax
    return _described(component, config, file)


def _described(component: Any, config: Path, file: Path) -> tuple[Model, Weights]:
    """A model of that class as its config.json describes it, with the weights in the file, torch's or Flax's."""
    options = hub.read_json(config)
    if file.suffix != ".msgpack":
        found = weights.tensors(file)
        return component.from_config(options, file=config).fitted(found), Weights(file, found)
    options = {key: value for key, value in options.items() if key not in FLAX_ONLY}
    options["_class_name"] = component.__name__
    return component.from_config(options, file=config), Weights(file, flax_weights.tensors(file))


def _write(folder: str | Path, found: Checkpoint, dtype: Any, quantize: str | None, progress: Progress) -> None:
    """Write all parts, reading as they are written, after the models are known to be complete."""
    done = 0

    def report(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        progress(done, total)

    def tree(model: Any, source: Any, kind: str | None) -> Any:
        if isinstance(model, tuple):
            return [tree(*pair, kind) for pair in zip(model, source, strict=True)]
        return lazy(source.tensors, model.shapes(), file=source.file, dtype=dtype, quantize=kind, report=report)

    trees = {
        name: tree(*part, quantize if not name or name.startswith(packed.QUANTIZED) else None)
        for name, part in found.parts.items() if part[1] is not None
    }
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(trees))
    with hub.staged(folder) as temporary:
        entries = {
            name: save_component(part, trees.get(name), temporary, name) for name, (part, _) in found.parts.items()
        }
        if found.pipeline is not None:
            write_index(temporary, found.pipeline, entries)
