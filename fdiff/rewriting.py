"""Checkpoints of other layouts, single files and Flax's own, written in the Hub's layout of today."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convert import flax_weights
from convert.lazy import Leaf, lazy
from convert.tensors import Tensor
from fdiff import hub, models, schedulers, single_file
from fdiff.models.model import CONFIG, Model
from fdiff.schedulers.scheduler import FILE as SCHEDULER_CONFIG

INDEX = "model_index.json"
FLAX_ONLY = ("dtype", "split_head_dim", "use_memory_efficient_attention")  # fields of Flax's modules alone

Progress = Callable[[int, int], object]  # bytes written, bytes in all


def convert_file(
    source: str | Path,
    folder: str | os.PathLike[str],
    *,
    config: str | Path | None = None,
    tokenizer: str | Path | None = None,
    prediction_type: str | None = None,
    ema: bool = False,
    dtype: Any = None,
    progress: Progress = lambda done, total: None,
) -> None:
    """Write a checkpoint in the Hub's layout; all of `folder` appears, or nothing.

    `source` is a single file as `fdiff.single_file.load` takes it, a .msgpack file of Flax with its config.json
    beside it, or a folder of such models with a model_index.json. One tensor at a time is in memory. Weights
    become `dtype`; None keeps what the file has. `progress` is called with the bytes written and those in all.
    For the other arguments and the errors see `fdiff.single_file.load`.
    """
    path = Path(source).expanduser()
    if path.is_dir() or path.suffix == ".msgpack":
        found = _flax_pipeline(path) if (path / INDEX).is_file() else {"": _flax_model(path)}
        with hub.staged(folder) as temporary:
            _save(temporary, path, found, dtype, progress)
            if (path / INDEX).is_file():
                _copy_rest(path, temporary, found)
        return
    file = single_file.find(source, single_file.ANYWHERE)
    opened = single_file.inspect(
        file, config=config, tokenizer=tokenizer, prediction_type=prediction_type, ema=ema
    )
    alone = opened.pipeline is None and len(opened.models) == 1
    with hub.staged(folder) as temporary:
        found = {"" if alone else name: (model, opened.params[name]) for name, model in opened.models.items()}
        _save(temporary, file, found, dtype, progress)
        for name, clip in opened.tokenizers.items():
            clip.save_pretrained(temporary / name)
        if opened.scheduler is not None:
            opened.scheduler.save_pretrained(temporary / "scheduler")
        if not alone:
            hub.write_json(temporary / INDEX, _index(opened))


Found = dict[str, tuple[Model, dict[str, Tensor]]]  # folder -> model, tensors by their names of today


def _save(folder: Path, file: Path, found: Found, dtype: Any, progress: Progress) -> None:
    """Write the models, reading as they are written, after all of them are known to be complete."""
    done, leaves = 0, []

    def report(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        progress(done, total)

    trees = {}
    for name, (model, tensors) in found.items():
        trees[name] = lazy(tensors, model.shapes(), file=file, dtype=dtype, report=report)
        leaves += _leaves(trees[name])
    total = sum(leaf.nbytes for leaf in leaves)
    for name, (model, _) in found.items():
        model.save_pretrained(folder / name, trees[name])


def _leaves(tree: Any) -> list[Leaf]:
    return [leaf for value in tree.values() for leaf in _leaves(value)] if isinstance(tree, dict) else [tree]


def _index(opened: single_file.Loaded) -> dict[str, Any]:
    """model_index.json of what a single file held."""
    index: dict[str, Any] = {"_class_name": opened.pipeline}
    for name, model in opened.models.items():
        index[name] = ["transformers" if model.model_type else "diffusers", type(model).__name__]
    index |= {name: ["transformers", type(clip).__name__] for name, clip in opened.tokenizers.items()}
    index["scheduler"] = ["diffusers", type(opened.scheduler).__name__]
    if "unet" in opened.models and "text_encoder_2" not in opened.models:
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
    return index | opened.options


def _flax_model(path: Path) -> tuple[Model, dict[str, Tensor]]:
    """A model of Flax: its weights file, or the folder of it. Raises FileNotFoundError, and ValueError."""
    folder = path if path.is_dir() else path.parent
    candidates = [folder / name for name in flax_weights.NAMES] if path.is_dir() else [path]
    file = next((file for file in candidates if file.is_file()), None)
    if file is None:
        raise FileNotFoundError(f"{path} has no {' nor '.join(flax_weights.NAMES)}; check its name.")
    config = {key: value for key, value in hub.read_json(folder / CONFIG).items() if key not in FLAX_ONLY}
    kind = str(config.get("_class_name") or (config.get("architectures") or [None])[0]).removeprefix("Flax")
    found = getattr(models, kind, None)
    if not (isinstance(found, type) and issubclass(found, Model)):
        raise ValueError(f"{folder / CONFIG} describes a {kind}, which fdiff does not have.")
    config.pop("_class_name", None)
    return found.from_config(config, file=folder / CONFIG), flax_weights.tensors(file)


def _flax_pipeline(folder: Path) -> Found:
    """The models of a pipeline of Flax."""
    names = [name for name, entry in hub.read_json(folder / INDEX).items() if isinstance(entry, list)]
    return {
        name: _flax_model(folder / name)
        for name in names
        if any((folder / name / weights).is_file() for weights in flax_weights.NAMES)
    }


def _copy_rest(source: Path, target: Path, written: Found) -> None:
    """Bring over what has no weights: the index, the scheduler and the folders of small files."""
    index = hub.read_json(source / INDEX)
    for name, entry in index.items():
        if isinstance(entry, list):
            index[name] = [text.removeprefix("Flax") if isinstance(text, str) else text for text in entry]
            if (source / name / SCHEDULER_CONFIG).is_file():
                config = hub.read_json(source / name / SCHEDULER_CONFIG)
                kind = str(config.pop("_class_name")).removeprefix("Flax")
                config = {key: value for key, value in config.items() if key != "dtype"}
                getattr(schedulers, kind).from_config(config).save_pretrained(target / name)
            elif name not in written and (source / name).is_dir():
                shutil.copytree(source / name, target / name)
    index["_class_name"] = str(index["_class_name"]).removeprefix("Flax")
    hub.write_json(target / INDEX, index)
