"""What a model consists of, from its configs and the headers of its weights."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jax

from convert import weights
from fdiff import hub, registry
from fdiff.models.model import CONFIG, Model
from fdiff.pipelines.pipeline import INDEX
from fdiff.schedulers.scheduler import FILE as SCHEDULER_CONFIG


def summary(source: str | Path) -> str:
    """A table of a pipeline's or model's components, parameters and dtypes, and the scheduler's options.

    Weights are not read, only their headers, though those of a Hub repository are fetched if they are not in the cache.
    """
    place = hub.Source(source)
    file = hub.fetch(place, INDEX, CONFIG, SCHEDULER_CONFIG)
    config = hub.read_json(file)
    kind = config.get("_class_name") or (config.get("architectures") or ["?"])[0]
    lines = [f"{kind}  {source}"]
    if file.name == CONFIG:
        lines.append(_model(kind, place))
    if file.name == SCHEDULER_CONFIG:
        lines += _options(config)
    if file.name == INDEX:
        for name, entry in config.items():
            if isinstance(entry, list) and len(entry) == 2 and entry[1]:
                part = place._replace(subfolder=name if hub.has_folder(source, name) else None)
                lines.append(_component(name, entry[1], part))
                if "Scheduler" in entry[1]:
                    lines += _options(hub.read_json(hub.fetch(part, SCHEDULER_CONFIG)))
    return "\n".join(lines)


def _component(name: str, kind: str, place: hub.Source) -> str:
    if kind in dict(registry.known(Model)):
        return f"  {name}: {_model(kind, place)}"
    return f"  {name}: {kind}"


def _model(kind: str, place: hub.Source) -> str:
    """Class, number of parameters, dtypes and sample size of one model."""
    config = hub.read_json(hub.fetch(place, CONFIG))
    cls = registry.lookup(kind, Model, config)
    if cls is None:
        return f"{kind}, which fdiff does not have"
    module = cls.from_config(config)
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(module.shapes()))
    found = weights.tensors(hub.fetch_weights(place, cls.weights_name))
    dtypes = sorted({str(tensor.dtype) for tensor in found.values()})
    size = getattr(module, "sample_size", None)
    return f"{kind}, {count:,} parameters, {' and '.join(dtypes)}" + (f", samples of {size}" if size else "")


def _options(config: dict[str, Any]) -> list[str]:
    return [f"    {name}: {json.dumps(value)}" for name, value in config.items() if not name.startswith("_")]
