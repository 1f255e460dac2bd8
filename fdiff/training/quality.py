"""How good a model in a folder is, beside data: figures of what it draws, or of how an autoencoder keeps pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fdiff import hub, images, keys, registry
from fdiff.models import Model
from fdiff.pipelines import DiffusionPipeline
from fdiff.training import classifier, evaluation
from fdiff.training.data import Source
from fdiff.training.folder import read_settings
from fdiff.training.loader import Prepare, pixels

AT_ONCE = 50  # pictures that are drawn or kept in one call
MOST = 10_000  # pictures of the data that are compared with


class Drawn(NamedTuple):
    """Pictures (n, h, w, c), bytes, and the numbers of the classes that were asked for, if any."""

    images: np.ndarray
    asked: np.ndarray | None


def measure(
    folder: str | Path, source: Source, *, samples: int = 1000, seed: int = 0, steps: int = 2000
) -> dict[str, Any]:
    """The figures of the model in the folder, beside the samples of the source, as a dict that JSON can hold.

    A pipeline draws `samples` pictures, whose features are compared with those of the data, see
    `fdiff.training.evaluation`. The features are those of a classifier that is fitted to the data in so many `steps`:
    of its classes where it has some, and else of how a picture was turned (Gidaris et al. 2018), which needs none.
    "accuracy" is the share of the pictures that it reads as the class that was asked for. An autoencoder is given the
    data's pictures, and "psnr" is the mean over them of 10 log10 (255^2 / the mean squared error), in decibels.

    Raises ValueError for a model that draws neither from nothing nor from classes or texts.
    """
    if (Path(folder) / "config.json").is_file():
        return _of_autoencoder(Path(folder), source, samples)
    pipe, params = DiffusionPipeline.from_pretrained(folder)
    drawn = draw(pipe, params, source, samples, seed)
    real, labels = _pictures(source, _prepare(folder, drawn.images.shape[1:]))
    if source.classes:
        read, what = real, f"a classifier of the {len(source.classes)} classes of the data"
    else:
        read, labels = _turned(real)
        what = "a classifier of how the pictures of the data were turned"
    fitted = classifier.fit(read, labels, steps=steps, seed=seed)
    one, (two, told) = fitted.read(real)[0], fitted.read(drawn.images)
    kernel, deviation = evaluation.kernel_distance(one, two, seed=seed)
    covered = evaluation.precision_recall(one, two)
    figures = {
        "model": type(pipe).__name__, "samples": len(drawn.images), "seed": seed, "compared_with": len(real),
        "features": what, "classifier_accuracy": fitted.accuracy,
        "frechet": evaluation.frechet_distance(one, two), "kernel": kernel, "kernel_deviation": deviation,
        "precision": covered.precision, "recall": covered.recall,
    }  # fmt: skip
    asked = {} if drawn.asked is None or not source.classes else {"accuracy": evaluation.accuracy(told, drawn.asked)}
    return figures | asked


def draw(pipe: Any, params: Any, source: Source, samples: int, seed: int = 0) -> Drawn:
    """What a pipeline draws: of classes and of the texts of the source, where it asks for such, they take turns.

    Raises ValueError for a pipeline that asks for something else, or for texts or classes that the source has not.
    """
    names = {one.name for one in pipe.steps.task.options}
    if pipe.makes == "molecules":
        raise ValueError(f"a {type(pipe).__name__} makes molecules, and pictures are what is compared; draw molecules "
                         "into a file and say fdiff evaluate molecules FILE")
    parts, asked = [], None
    if "class_labels" in names:
        classes = pipe.unet.num_class_embeds - 1
        asked = np.arange(samples) % classes
        if source.classes and len(source.classes) != classes:
            raise ValueError(f"the data has {len(source.classes)} classes and the model {classes}; give data of those")
    for number, i in enumerate(range(0, samples, AT_ONCE)):
        rows, options = range(i, min(i + AT_ONCE, samples)), {}
        if asked is not None:
            options["class_labels"] = asked[rows.start : rows.stop].tolist()
        elif "prompt" in names and "image" not in names:
            options["prompt"] = [_text(source, row) for row in rows]
        elif "batch_size" in names:
            options["batch_size"] = len(rows)
        else:
            raise ValueError(f"a {type(pipe).__name__} draws neither from nothing nor from classes or texts; evaluate "
                             "one that does")
        key = keys.fold_in(jax.random.key(seed), number)
        parts.append(pipe(params, **options, key=key, output_type="np", progress=False).images)
    return Drawn(images.to_uint8(np.concatenate(parts) * 2 - 1), asked)


def _text(source: Source, i: int) -> str:
    said = source[i % len(source)].get("text")
    if not isinstance(said, str):
        raise ValueError(f"{source.name(i % len(source))} has no text, and the model draws what texts say; add them")
    return said


def _of_autoencoder(folder: Path, source: Source, samples: int) -> dict[str, Any]:
    """How near the pictures that come out of an autoencoder are to those that went in."""
    config = hub.load_config(folder, "config.json")
    kind = registry.find_component(hub.class_name(config, folder / "config.json"), folder, config)
    if not (issubclass(kind, Model) and hasattr(kind, "encode") and hasattr(kind, "decode")):
        raise ValueError(f"{folder} holds a {kind.__name__}, which is neither a pipeline nor an autoencoder")
    model, params = kind.from_pretrained(folder)
    size = (model.sample_size,) * 2 if isinstance(model.sample_size, int) else tuple(model.sample_size)
    real, _ = _pictures(source, _prepare(folder, (*size, model.in_channels)), samples)
    keep = jax.jit(lambda x: model.apply({"params": params}, x))
    errors = []
    for i in range(0, len(real), AT_ONCE):
        pictures = real[i : i + AT_ONCE]
        kept = images.to_uint8(jax.device_get(keep(pixels(pictures))))
        errors.append(((kept.astype(np.float64) - pictures) ** 2).mean((1, 2, 3)))
    error = np.concatenate(errors)
    psnr = 10 * np.log10(255**2 / np.maximum(error, 1e-12))
    return {"model": kind.__name__, "samples": len(real), "psnr": float(psnr.mean()),
            "mean_squared_error": float(error.mean())}  # fmt: skip


def _prepare(folder: str | Path, shape: tuple[int, ...]) -> Prepare:
    """How the pictures were prepared that the model was trained on, as far as its folder says it."""
    return Prepare((shape[0], shape[1]), shape[2], read_settings(Path(folder)).get("fit", "crop"))


def _pictures(source: Source, prepare: Prepare, most: int = MOST) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n, h, w, c), bytes, and their labels (n,), of some of the source where it has more."""
    random = np.random.default_rng(0)
    chosen = random.permutation(len(source))[:most]
    found = [prepare(source[int(i)], random) for i in chosen]
    return np.stack([one["image"] for one in found]), np.array([one.get("label", 0) for one in found])


def _turned(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every picture turned by 0, 90, 180 or 270 degrees, or 0 or 180 unless it is square, and which it was."""
    square = pictures.shape[1] == pictures.shape[2]
    labels = np.random.default_rng(0).integers(4 if square else 2, size=len(pictures))
    turns = labels if square else 2 * labels
    return np.stack([np.rot90(one, turn) for one, turn in zip(pictures, turns, strict=True)]), labels
