"""The data of trainings that begin with a text-to-image model: pictures and texts, computed once or in every step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fdiff.bars import bar
from fdiff.pipelines.latent import check_pixels, factor_of
from fdiff.prompts import Encoded
from fdiff.training import data
from fdiff.training.data import Source
from fdiff.training.kept import NUMBER, digest, keep
from fdiff.training.loader import Prepare, Preparing, once, pixels
from fdiff.training.order import Shape, shapes_of, size_of
from fdiff.training.tasks.latents import Base, Params, TextSettings, posterior, read, tokens, told_sizes

ENCODED = "encoded"  # the folder of what is kept
READ = ("image", "mean", "logvar", "time_ids", "control")  # what the loss reads of a sample


class Material(NamedTuple):
    """Data for a loss: samples, how they are prepared and collated, and what the loss needs to read them.

    needs: parameters for `loss`: of the autoencoder and the text encoders where these run in every step, and
        "nothing", what stands for a text that is withheld.
    prompts: for the sheets of samples.
    size: height and width of the pictures.
    shapes: those that each is brought to the nearest of, if there are several.
    """

    source: Source
    prepare: Preparing
    collate: Callable[[dict[str, Any]], Any]
    needs: Params
    prompts: list[str]
    size: tuple[int, int]
    shapes: tuple[Shape, ...] = ()


def captions(source: Source, default: str) -> list[list[str]]:
    """The texts of each sample, of most a list of one. Raises ValueError for one without, unless there is a default."""
    found = data.texts(source)
    for i, text in enumerate(found):
        if not text and not default:
            raise ValueError(f"{source.name(i)} has no caption; give it a text in metadata.jsonl, or say with --prompt "
                             "what such pictures show")
    return [[default] if not text else [text] if isinstance(text, str) else text for text in found]


def material(
    base: Base, settings: TextSettings, source: Source, folder: Path, *, texts: list[list[str]] | None = None,
    trains_text: bool = False, control: Callable[[Any], Any] | None = None,
) -> Material:  # fmt: skip
    """The samples of a source for a base.

    Args:
        base: the model.
        settings: the training's.
        source: the data.
        folder: where what is kept goes.
        texts: what each sample shows; of several one is drawn each time. Its caption if not given.
        trains_text: the text encoders change, so texts are read in every step.
        control: of a sample with its picture prepared, makes bytes (h, w, 3), what a ControlNet looks at.

    Raises ValueError for a size that the model cannot have and a picture without a text.
    """
    pipe, factor = base.pipe, factor_of(base.pipe.vae)
    size = _size(pipe, settings, factor)
    shapes = shapes_of(settings.buckets, size[0])
    for height, width in shapes:
        check_pixels(height, width, factor)
    texts = captions(source, settings.prompt) if texts is None else texts
    distinct = sorted({text for some in texts for text in some})
    numbers = {text: i for i, text in enumerate(distinct)}
    which = np.array([[numbers[text] for text in some] for some in texts])
    keeps = settings.keep_encoded and not settings.random_crop and not shapes
    crop = Prepare(size, 3, settings.fit, settings.random_crop, settings.flip and not keeps, told_sizes(pipe))
    prepare: Preparing = crop if control is None else Controlled(crop, control)
    facts = {
        "model": settings.model, "size": list(size), "fit": settings.fit, "flip": settings.flip,
        "control": getattr(control, "__name__", ""), "samples": digest(source.name(i) for i in range(len(source))),
    }  # fmt: skip
    needs: Params = {}
    if keeps:
        steps = encoded_latents(base, prepare, source, settings)
        source = keep(folder / "latents", facts, len(source), steps)
    else:
        needs["vae"] = base.params["vae"]
    empty = pipe.encode_prompt(base.params, "")[1]  # zeros where SDXL says so
    if trains_text or not settings.keep_encoded:
        tables: Any = tokens(pipe, distinct)
        needs |= base.of(base.encoders)
        needs["nothing"] = empty if getattr(pipe, "force_zeros_for_empty_prompt", False) else tokens(pipe, [""])
    else:
        facts = {"model": settings.model, "texts": digest(distinct)}
        steps = encoded_texts(base, distinct, settings.batch_size)
        kept: dict[str, Any] = keep(folder / "texts", facts, len(distinct), steps).arrays
        tables, needs["nothing"] = Encoded(kept["embeddings"], kept["pooled"]), empty

    def collate(arrays: dict[str, Any]) -> Any:
        told = jax.tree.map(lambda leaf: leaf[arrays["which"]], tables)
        return {name: array for name, array in arrays.items() if name in READ} | {"text": told}

    shown = [settings.sample_prompt] if settings.sample_prompt else [some[0] for some in texts[: settings.samples]]
    return Material(Said(source, which), Pick(None if keeps else prepare), collate, needs, shown, size, shapes)


def _size(pipe: Any, settings: TextSettings, factor: int) -> tuple[int, int]:
    own = pipe.unet.sample_size
    if settings.size is None and own is None:
        raise ValueError("the config.json of the unet has no sample_size; give --size")
    sides = (settings.size,) * 2 if settings.size else tuple(factor * side for side in np.broadcast_to(own, 2))
    check_pixels(int(sides[0]), int(sides[1]), factor)
    return int(sides[0]), int(sides[1])


@dataclasses.dataclass(frozen=True, eq=False)
class Said:
    """Samples of a source, with the numbers of the texts of each as "which"."""

    source: Source
    which: np.ndarray
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> Mapping[str, Any]:
        sample = {name: value for name, value in self.source[i].items() if name not in ("text", "label")}
        return {**sample, "which": self.which[sample.pop(NUMBER, i)]}

    def name(self, i: int) -> str:
        """The source's."""
        return self.source.name(i)

    def size(self, i: int) -> tuple[int, int]:
        """(width, height) of the picture."""
        return size_of(self.source, i)


@dataclasses.dataclass(frozen=True)
class Pick:
    """Prepares a sample, or takes one side of what is kept, as it is or mirrored; and one of its texts."""

    prepare: Preparing | None = None

    def __call__(self, sample: Any, random: np.random.Generator) -> dict[str, Any]:
        """The arrays of the sample."""
        found = dict(sample) if self.prepare is None else self.prepare(sample, random)
        if self.prepare is None:
            side = random.integers(len(found["mean"]))
            found |= {name: found[name][side] for name in ("mean", "logvar", "control") if name in found}
        return {**found, "which": random.choice(found["which"])}


@dataclasses.dataclass(frozen=True)
class Controlled:
    """Prepares a picture, and makes "control" of the sample with what is done to a picture."""

    prepare: Prepare
    make: Callable[[Any], Any]

    def __call__(self, sample: Any, random: np.random.Generator) -> dict[str, Any]:
        """The arrays of the sample: the picture that steers is cut and mirrored as the other."""
        seed = int(random.integers(2**32))
        found = self.prepare(sample, np.random.default_rng(seed))
        steering = sample.get("conditioning_image")
        if steering is None:
            return {**found, "control": self.make(found["image"])}
        steering = data.opened(steering.read_bytes()) if isinstance(steering, Path) else steering
        steering = {**sample, "image": steering}
        return {**found, "control": self.prepare(steering, np.random.default_rng(seed))["image"]}


def encoded_latents(
    base: Base, prepare: Preparing, source: Source, settings: TextSettings
) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """(numbers, arrays) of all samples: mean and logvar (b, sides, h, w, c), mirrored on the second side if asked."""
    encode = jax.jit(lambda params, images: posterior(base.pipe.vae, params, pixels(images)))
    with bar(total=len(source), desc="latents", unit="picture") as shown:
        for numbers, arrays in once(source, prepare, settings.batch_size, seed=settings.seed):
            images = arrays.pop("image")
            room = [(0, settings.batch_size - len(images)), *((0, 0),) * 3]  # so that it compiles once
            sides = [images, images[:, :, ::-1]] if settings.flip else [images]
            found = [encode(base.params["vae"], np.pad(side, room)) for side in sides]
            for name in ("mean", "logvar"):
                arrays[name] = np.stack([getattr(one, name)[: len(images)] for one in found], axis=1)
            if "control" in arrays:
                control = arrays["control"]
                arrays["control"] = np.stack([control, control[:, :, ::-1]] if settings.flip else [control], axis=1)
            yield numbers, {name: array for name, array in arrays.items() if name in READ}
            shown.update(len(numbers))


def encoded_texts(base: Base, texts: list[str], count: int) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """(numbers, arrays) of all texts: embeddings (b, n, d) and pooled (b, p)."""
    for start in bar(range(0, len(texts), count), desc="texts", unit="batch"):
        some = texts[start : start + count]
        found = read(base.pipe, base.params, tokens(base.pipe, some + [""] * (count - len(some))))
        numbers = [*range(start, start + len(some))]
        yield numbers, {name: np.asarray(array)[: len(some)] for name, array in found._asdict().items()}


def drawing(found: Material, **options: Any) -> Callable[[Any, Any, Any, int], list[Any]]:
    """How sheets of samples are drawn: the prompts in turn."""
    def draw(pipe: Any, params: Any, key: jax.Array, count: int) -> list[Any]:
        texts = [found.prompts[i % len(found.prompts)] for i in range(count)]
        height, width = found.size
        drawn: list[Any] = pipe(params, texts, key=key, height=height, width=width, progress=False, **options).images
        return drawn

    return draw
