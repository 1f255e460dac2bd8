"""The order in which samples are taken, decided ahead by a seed, in batches of pictures of one shape."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Sequence

import numpy as np

from fdiff.training.data import Source

Shape = tuple[int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class Order:
    """Whole batches by their number, 0, 1, ...: which samples each has, and of what shape.

    The samples of a shape are taken in one random order after another. An epoch has as many whole batches of each as
    its samples suffice for, in random order; those left over at its end come first in the next. So every sample comes
    as often as any other.

    groups: the numbers of the samples of each shape, none of them empty.
    shapes: (height, width) of each, or None where samples are as they are.
    """

    groups: tuple[np.ndarray, ...]
    shapes: tuple[Shape | None, ...]
    batch_size: int
    seed: int

    def __getitem__(self, batch: int) -> tuple[np.ndarray, int]:
        """The numbers of the samples, and the group they are of."""
        counts = tuple(len(group) for group in self.groups)
        epoch = batch * self.batch_size // sum(counts)
        while _before(counts, self.batch_size, epoch + 1) <= batch:  # others' left-overs make an epoch begin later
            epoch += 1
        group, start = _epoch(counts, self.batch_size, self.seed, epoch)[
            batch - _before(counts, self.batch_size, epoch)
        ]
        places = np.arange(start, start + self.batch_size)
        rounds, within = np.divmod(places, counts[group])
        orders = [_permutation(self.seed, group, int(one), counts[group]) for one in rounds]
        taken = [order[place] for order, place in zip(orders, within, strict=True)]
        return self.groups[group][np.array(taken)], int(group)


def order(source: Source, batch_size: int, seed: int = 0, shapes: Sequence[Shape] = ()) -> Order:
    """The order of a source, whose pictures go to the shape that is nearest by the ratio of its sides, if any.

    Sizes are read from the heads of files; those that cannot be read go to the first shape. A source that has `groups`,
    arrays of the numbers of samples that are alike, gets batches of one group each.
    """
    if not shapes:
        alike = getattr(source, "groups", (np.arange(len(source)),))
        return Order(alike, (None,) * len(alike), batch_size, seed)
    ratios = np.log([height / width for height, width in shapes])
    nearest = np.array([_nearest(source, i, ratios) for i in range(len(source))])
    used = [i for i in range(len(shapes)) if (nearest == i).any()]
    groups = tuple(np.flatnonzero(nearest == i) for i in used)
    return Order(groups, tuple(shapes[i] for i in used), batch_size, seed)


def shapes_of(text: str, size: int | None, multiple: int = 1) -> tuple[Shape, ...]:
    """Shapes (height, width) from "64x64,48x80", or a number of them, of about the area of a square of that size.

    Those of a number have ratios of sides from 1/2 to 2, evenly on a logarithmic scale, and sides that are multiples of
    64, or of 8 below a size of 512, and of `multiple`. Raises ValueError for anything else, and for other multiples.
    """
    if not text:
        return ()
    if re.fullmatch(r"[1-9]\d*x[1-9]\d*(,[1-9]\d*x[1-9]\d*)*", text):
        given = tuple((int(h), int(w)) for h, w in (one.split("x") for one in text.split(",")))
        for height, width in given:
            if height % multiple or width % multiple:
                raise ValueError(f"buckets has {height}x{width}, and the model takes multiples of {multiple}; "
                                 "give such")
        return given
    if not re.fullmatch(r"[1-9]\d?", text):
        raise ValueError(f"buckets is {text!r}; it can be a number of shapes, such as 5, or shapes as 64x64,48x80")
    if size is None:
        raise ValueError(f"buckets is {text}, a number of shapes, and size is not given, whose area they are to have")
    multiple, found = math.lcm(64 if size >= 512 else 8, multiple), []
    for ratio in 2 ** np.linspace(-1, 1, int(text)) if int(text) > 1 else [1.0]:
        height, width = (max(multiple, round(size * side / multiple) * multiple) for side in (ratio**0.5, ratio**-0.5))
        found.append((height, width))
    return tuple(dict.fromkeys(found))


def size_of(source: Source, i: int) -> tuple[int, int]:
    """(width, height) of a picture, from the head of its file where the source can tell."""
    found: tuple[int, int] = source.size(i) if hasattr(source, "size") else source[i]["image"].size
    return found


def _nearest(source: Source, i: int, ratios: np.ndarray) -> int:
    try:
        width, height = size_of(source, i)
    except (OSError, ValueError, SyntaxError, EOFError):  # as Pillow's readers raise
        return 0
    return int(np.abs(ratios - np.log(height / width)).argmin())


def _before(counts: tuple[int, ...], batch_size: int, epoch: int) -> int:
    """How many batches the epochs before that one have."""
    return sum(epoch * count // batch_size for count in counts)


@functools.lru_cache(maxsize=8)
def _epoch(counts: tuple[int, ...], batch_size: int, seed: int, epoch: int) -> list[tuple[int, int]]:
    """The batches of an epoch: of which group each is, and where it starts among all that are taken of that."""
    batches = [
        (group, number * batch_size)
        for group, count in enumerate(counts)
        for number in range(epoch * count // batch_size, (epoch + 1) * count // batch_size)
    ]
    if len(counts) > 1:
        np.random.default_rng((seed, epoch, 1)).shuffle(batches)
    return [(int(group), int(start)) for group, start in batches]


@functools.lru_cache(maxsize=64)
def _permutation(seed: int, group: int, number: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, group, number, 0)).permutation(count)
