"""Batches of samples: decoded, resized, cropped and flipped in worker processes, in an order that a restart keeps."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import images
from fdiff.training.data import Source
from fdiff.training.order import Order, Shape, order

log = logging.getLogger("fdiff")

FITS = ("crop", "pad", "stretch")
# Samples that cannot be read are passed over; this many, and this share of those seen besides, before it is an error.
SPARED, SPARED_SHARE = 10, 0.01
RETRIES = 100
THREADS = 4  # that read a batch ahead each, where no processes do
ENDLESS = 2**40

Preparing = Callable[[Any, np.random.Generator], dict[str, Any]]


def pixels(images: Any) -> jax.Array:
    """The bytes (b, h, w, c) that `Prepare` makes, to [-1, 1]."""
    return jnp.asarray(images, jnp.float32) / 127.5 - 1


@dataclasses.dataclass(frozen=True)
class Prepare:
    """What is done to a picture: (sample, random) -> its arrays, pixels as bytes (height, width, channels).

    size: (height, width) to bring it to, where the sample does not say one; None leaves it as it is.
    exact: leave one of another size as it is, for `batches` to refuse.
    channels: 1 or 3.
    fit: crop scales it to cover the size and cuts the middle; pad scales it down to fit, never up, and lays it on the
        colour of its first corner; stretch does neither.
    random_crop: cut anywhere in place of the middle.
    flip: mirror it left to right half of the time.
    told: say also "time_ids", the size of the picture as it was, where it was cut, and its size now, each (height,
        width) or (top, left), which SDXL is told (Podell et al. 2023, section 2.2).
    """

    size: tuple[int, int] | None = None
    channels: int = 3
    fit: str = "crop"
    random_crop: bool = False
    flip: bool = False
    told: bool = False
    exact: bool = False

    def __call__(self, sample: Mapping[str, Any], random: np.random.Generator) -> dict[str, Any]:
        """The sample with its picture as an array."""
        from PIL import Image, ImageOps

        picture, size = sample["image"], sample.get("size", self.size)
        if isinstance(picture, np.ndarray):
            picture = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
        picture = images.in_mode(picture, "RGB" if self.channels == 3 else "L")
        original, before, after = picture.size[::-1], (0, 0), (0, 0)
        if size is not None and picture.size != size[::-1] and not (self.exact and "size" not in sample):
            picture, before, after = self._fitted(picture, size, random)
        if self.flip and random.random() < 0.5:
            picture = ImageOps.mirror(picture)
            before = before[0], after[1]
        array = np.asarray(picture)
        found = {name: value for name, value in sample.items() if name not in ("conditioning_image", "size")}
        found["image"] = array if array.ndim == 3 else array[..., None]
        if self.told:
            found["time_ids"] = np.array([*original, *before, *array.shape[:2]], np.float32)
        return found

    def _fitted(
        self, picture: Any, size: Shape, random: np.random.Generator
    ) -> tuple[Any, tuple[int, int], tuple[int, int]]:
        """The picture in that size, and what was cut off before it and after it, (rows, columns)."""
        from PIL import Image

        height, width = size
        if self.fit == "stretch":
            return picture.resize((width, height), Image.Resampling.LANCZOS), (0, 0), (0, 0)
        scales = width / picture.width, height / picture.height
        scale = min(1.0, *scales) if self.fit == "pad" else max(scales)
        sides = [max(1, round(scale * side)) for side in picture.size]
        if self.fit == "crop":
            sides = [max(side, least) for side, least in zip(sides, (width, height), strict=True)]
        scaled = picture if scale == 1 else picture.resize(tuple(sides), Image.Resampling.LANCZOS)
        if self.fit == "pad":
            sheet = Image.new(picture.mode, (width, height), picture.getpixel((0, 0)))
            sheet.paste(scaled, ((width - scaled.width) // 2, (height - scaled.height) // 2))
            return sheet, (0, 0), (0, 0)
        room = scaled.width - width, scaled.height - height
        left, top = [int(random.integers(side + 1)) if self.random_crop else side // 2 for side in room]
        cut = scaled.crop((left, top, left + width, top + height))
        return cut, (top, left), (room[1] - top, room[0] - left)


class Batch(NamedTuple):
    """Arrays (b, ...) by their names, texts as lists, and how many samples have been taken when it is done."""

    arrays: dict[str, Any]
    taken: int


class Part(NamedTuple):
    """Which of how many equal parts of every batch a process loads."""

    number: int = 0
    of: int = 1


def batches(
    source: Source, prepare: Preparing, batch_size: int, *, seed: int = 0, taken: int = 0, workers: int = 0,
    shapes: Sequence[Shape] = (), part: Part = Part(),  # noqa: B008 - a constant
) -> Iterator[Batch]:  # fmt: skip
    """Batches without end: every sample once in each epoch, in an order that the seed and the epoch give.

    Args:
        source: see `fdiff.training.data.find`.
        prepare: what is done to each picture.
        batch_size: how many a batch has, all parts together.
        seed: of the order, the crops and the flips.
        taken: of a batch of an earlier iterator, after which this one goes on, with however many workers and parts.
        workers: processes that read and prepare; 0 does it in this one.
        shapes: (height, width) that pictures are brought to in place of the size of `prepare`, each to the nearest by
            the ratio of its sides, the batches being of one shape each; what is left over of each at the end of an
            epoch comes first in the next, see `Order`.
        part: the part of each batch that is wanted.

    Samples that cannot be read are named in a warning, and others of their shape drawn in their place. Raises
    ValueError for more than a few of them, and for pictures of several sizes.
    """
    if len(source) < 1:
        raise ValueError("there are no samples; give more data")
    if batch_size % part.of:
        raise ValueError(f"a batch of {batch_size} does not divide into the parts of {part.of} processes; choose a "
                         f"multiple of {part.of} as batch_size")
    failed: set[str] = set()
    seen: set[tuple[int, ...]] = set()
    read = _Read(source, prepare, order(source, batch_size, seed, shapes), part)
    for i, (arrays, names) in enumerate(_stream(read, taken // batch_size, workers), taken // batch_size + 1):
        for name in names:
            _passed_over(name, failed, len(source))
        if isinstance(arrays, str):
            raise ValueError(arrays)
        if not shapes and "image" in arrays:
            _of_one_size({arrays["image"].shape[1:]}, seen)
        yield Batch(arrays, i * batch_size)


def once(
    source: Source, prepare: Preparing, batch_size: int, *, seed: int = 0
) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """(numbers, arrays) of all samples once and in order, the last batch shorter; errors are those of `batches`."""
    if len(source) < 1:
        raise ValueError("there are no samples; give more data")
    failed: set[str] = set()
    shapes: set[tuple[int, ...]] = set()
    got: list[tuple[int, dict[str, Any]]] = []
    for i in range(len(source)):
        sample = _read(source, prepare, i, np.random.default_rng((seed, i)))
        if "failed" in sample:
            _passed_over(sample["failed"], failed, len(source))
        else:
            got.append((i, sample))
        if got and (len(got) == batch_size or i + 1 == len(source)):
            numbers, samples = zip(*got, strict=True)
            yield list(numbers), _stacked(list(samples), shapes)
            got = []


@dataclasses.dataclass(frozen=True, eq=False)
class _Read:
    """The part of a batch by its number: its arrays, or what is wrong with them, and the samples that failed."""

    source: Source
    prepare: Preparing
    order: Order
    part: Part

    def __call__(self, batch: int) -> tuple[dict[str, Any] | str, list[str]]:
        numbers, group = self.order[batch]
        share = len(numbers) // self.part.of
        got: list[dict[str, Any]] = []
        failed: list[str] = []
        for row in range(self.part.number * share, (self.part.number + 1) * share):
            random = np.random.default_rng((self.order.seed, batch, row))
            sample = self._sample(int(numbers[row]), group, random, failed)
            if sample is None:
                return f"{failed[-1]} and {RETRIES - 1} others in a row cannot be read; mend the data", failed
            got.append(sample)
        try:
            return _stacked(got, set()), failed
        except ValueError as error:
            return str(error), failed

    def _sample(self, i: int, group: int, random: np.random.Generator, failed: list[str]) -> dict[str, Any] | None:
        """The prepared sample, or another of its group in its place, the same however many processes there are."""
        others = self.order.groups[group]
        for _ in range(RETRIES):
            sample = _read(self.source, self.prepare, i, random, self.order.shapes[group])
            if "failed" not in sample:
                return sample
            failed.append(sample["failed"])
            i = int(others[random.integers(len(others))])
        return None


def _read(
    source: Source, prepare: Preparing, i: int, random: np.random.Generator, shape: Shape | None = None
) -> dict[str, Any]:
    """The prepared sample, or what failed."""
    try:
        return prepare(source[i] if shape is None else {**source[i], "size": shape}, random)
    except (OSError, ValueError, SyntaxError, EOFError):  # as Pillow's readers raise
        return {"failed": source.name(i)}


def _stream(read: _Read, first: int, workers: int) -> Iterator[tuple[dict[str, Any] | str, list[str]]]:
    """What `read` gives for the batches from `first` on, read ahead."""
    import grain

    numbers = grain.MapDataset.range(first, ENDLESS).map(read)
    threads = 0 if workers else THREADS
    prepared = numbers.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads))
    if workers:
        from absl import flags

        if not flags.FLAGS.is_parsed():  # grain's processes ask for absl's flags, which only its own programs parse
            flags.FLAGS.mark_as_parsed()
        prepared = prepared.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(prepared)


def _passed_over(name: str, failed: set[str], count: int) -> None:
    if name not in failed:
        failed.add(name)
        log.warning("%s is no picture or is damaged; it is passed over", name)
    if len(failed) > SPARED + SPARED_SHARE * count or len(failed) == count:
        raise ValueError(f"{len(failed)} of {count} samples cannot be read, the last of them {name}; mend the data")


def _stacked(samples: list[dict[str, Any]], shapes: set[tuple[int, ...]]) -> dict[str, Any]:
    """The samples as one; `shapes` are those of all pictures before, and get those of these."""
    _of_one_size({np.shape(sample["image"]) for sample in samples if "image" in sample}, shapes)
    return {
        name: [sample[name] for sample in samples] if isinstance(samples[0][name], str)
        else np.stack([np.asarray(sample[name]) for sample in samples])
        for name in samples[0]
    }


def _of_one_size(found: set[tuple[int, ...]], shapes: set[tuple[int, ...]]) -> None:
    """Add what is found to the shapes of all pictures before, and raise ValueError for a second one."""
    shapes |= found
    if len(shapes) > 1:
        (a, b, _), (c, d, _) = sorted(shapes)[:2]
        raise ValueError(f"the pictures have several sizes, such as {a}x{b} and {c}x{d}; give --size")
