"""Checkpoints written anew: safetensors, names and layout of today."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convert import flax_weights
from convert.lazy import Leaf, lazy
from convert.tensors import Tensor
from fdiff import hub, models, schedulers, single_file
from fdiff.models.model import CONFIG, Model
from fdiff.pipelines.components import find_component
from fdiff.pipelines.pipeline import INDEX, DiffusionPipeline
from fdiff.schedulers.scheduler import FILE as SCHEDULER_CONFIG
from fdiff.schedulers.scheduler import Scheduler

FLAX_ONLY = ("dtype", "split_head_dim", "use_memory_efficient_attention")  # fields of Flax's modules alone

Progress = Callable[[int, int], object]  # bytes written, bytes in all
Found = dict[str, tuple[Model, dict[str, Tensor]]]  # folder -> model, tensors by their names of today


def convert(
    source: str | Path,
    folder: str | Path,
    *,
    dtype: Any = None,
    variant: str | None = None,
    config: str | Path | None = None,
    tokenizer: str | Path | None = None,
    prediction_type: str | None = None,
    ema: bool = False,
    progress: Progress = lambda done, total: None,
) -> None:
    """Write a checkpoint of any layout in the Hub's layout of today; all of the folder appears, or nothing.

    Args:
        source: a pipeline or model on the Hub or in a folder, its weights .safetensors or torch's .bin; one of HF's own
            Flax weights, a .msgpack file with its config.json beside it or a folder of them; or a single file of Stable
            Diffusion, as `fdiff.single_file.load` takes it.
        folder: where to write.
        dtype: of the weights that are written; None keeps what the file has.
        variant: which weights of a repository to read, such as "fp16".
        config, tokenizer, prediction_type, ema: for single files, see `fdiff.single_file.load`.
        progress: called with the bytes written and those in all, for files and Flax's weights, of which one tensor
            at a time is in memory.

    Raises ValueError and OSError that name what is wrong with the source.
    """
    path = Path(source).expanduser()
    if path.suffix == ".msgpack" or (path.is_dir() and any(next(path.rglob(n), None) for n in flax_weights.NAMES)):
        _convert_flax(path, folder, dtype, progress)
    elif path.is_file() or path.suffix in (".safetensors", ".ckpt"):
        file = single_file.find(source, single_file.ANYWHERE)
        opened = single_file.inspect(
            file, config=config, tokenizer=tokenizer, prediction_type=prediction_type, ema=ema
        )
        _convert_single(file, opened, folder, dtype, progress)
    else:
        _convert_repository(source, folder, dtype, variant)


def _convert_repository(source: str | Path, folder: str | Path, dtype: Any, variant: str | None) -> None:
    file = hub.fetch(hub.Source(source), INDEX, CONFIG, SCHEDULER_CONFIG)
    if file.name == INDEX:
        pipe, params = DiffusionPipeline.from_pretrained(source, dtype=dtype, variant=variant)
        pipe.save_pretrained(folder, params)
    elif file.name == SCHEDULER_CONFIG:
        Scheduler.from_pretrained(source).save_pretrained(folder)
    else:
        config = hub.read_json(file)
        kind = config.get("_class_name") or (config.get("architectures") or [None])[0]
        if kind is None:
            raise ValueError(f"{file} does not say of which class it is; add _class_name to it")
        model, params = find_component(kind, source).from_pretrained(source, dtype=dtype, variant=variant)
        model.save_pretrained(folder, params)


def _convert_flax(path: Path, folder: str | Path, dtype: Any, progress: Progress) -> None:
    found = _flax_pipeline(path) if (path / INDEX).is_file() else {"": _flax_model(path)}
    with hub.staged(folder) as temporary:
        _save(temporary, path, found, dtype, progress)
        if (path / INDEX).is_file():
            _copy_rest(path, temporary, found)


def _convert_single(
    file: Path, opened: single_file.Loaded, folder: str | Path, dtype: Any, progress: Progress
) -> None:
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
