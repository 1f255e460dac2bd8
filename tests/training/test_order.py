"""The order of samples: every one in its turn, in batches of one shape, the same for any number of processes."""

import itertools
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from fdiff.training import data, loader
from fdiff.training.order import Order, order, shapes_of


def test_every_sample_as_often_as_any_other_of_its_shape():
    groups = (np.arange(5), np.arange(5, 12), np.arange(12, 14))
    taken = Order(groups, ((8, 8), (8, 16), (16, 8)), 3, seed=1)
    seen: Counter[int] = Counter()
    for batch in range(25 // 3 + 35 // 3 + 10 // 3):  # five epochs, without what is left over of the last
        numbers, group = taken[batch]
        assert set(numbers) <= set(groups[group]) and len(numbers) == 3
        seen.update(numbers.tolist())
    for group in groups:
        times = [seen[int(number)] for number in group]
        assert max(times) - min(times) <= 1 and sum(times) == 5 * len(group) // 3 * 3
    assert [taken[i][0].tolist() for i in (3, 17)] == [Order(*groups_of(taken))[i][0].tolist() for i in (3, 17)]
    assert [taken[i][1] for i in range(20)] != sorted(taken[i][1] for i in range(20))


def groups_of(taken):
    return taken.groups, taken.shapes, taken.batch_size, taken.seed


def test_fewer_samples_than_a_batch():
    numbers = np.concatenate([Order((np.arange(3),), (None,), 4, 0)[i][0] for i in range(3)])
    assert sorted(numbers.tolist()) == sorted([0, 1, 2] * 4)


@pytest.fixture
def pictures(tmp_path):
    """Wide, tall and turned pictures, and one that is damaged, told by how bright they are."""
    for i in range(12):
        size = (24, 12) if i % 3 else (12, 24)
        Image.new("L", size, 10 * i).save(tmp_path / f"{i:02}.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held on its side
    Image.new("L", (24, 12), 200).save(tmp_path / "12.jpg", exif=turned)
    (tmp_path / "13.png").write_bytes((tmp_path / "01.png").read_bytes()[:40])
    return data.find(tmp_path)


SHAPES = ((8, 16), (16, 8))


def test_sizes_from_heads(pictures):
    assert pictures.size(0) == (12, 24) and pictures.size(1) == (24, 12) and pictures.size(12) == (12, 24)
    wide, tall = order(pictures, 2, shapes=SHAPES).groups
    assert tall.tolist() == [0, 3, 6, 9, 12] and 13 in wide


def stream(source, count, **options):
    found = loader.batches(source, loader.Prepare(None, 1), 4, seed=2, shapes=SHAPES, **options)
    return [(one.arrays["image"], one.taken) for one in itertools.islice(found, count)]


def test_batches_of_one_shape(pictures, caplog):
    whole = stream(pictures, 9)
    assert {image.shape for image, _ in whole} == {(4, 8, 16, 1), (4, 16, 8, 1)}
    assert "13.png" in caplog.text and len(caplog.records) == 1
    assert [taken for _, taken in whole] == list(range(4, 40, 4))
    again = stream(pictures, 5, taken=whole[3][1], workers=2)
    parts = zip(*(stream(pictures, 9, part=loader.Part(i, 2)) for i in range(2)), strict=True)
    for (image, _), (same, _) in zip(whole[4:], again, strict=True):
        np.testing.assert_array_equal(image, same)
    for (image, _), ((first, _), (second, _)) in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(image, np.concatenate([first, second]))


def test_shapes_of_an_area():
    assert shapes_of("8x16,16x8", None) == SHAPES and shapes_of("", 64) == () and shapes_of("1", 64) == ((64, 64),)
    for size, multiple in ((64, 8), (512, 64), (1024, 64)):
        found = shapes_of("5", size)
        assert len(found) == 5 and (size, size) in found and found[0][::-1] == found[-1]
        assert all(side % multiple == 0 for shape in found for side in shape)
        assert all(0.85 < height * width / size**2 < 1.15 for height, width in found)
    for text, size in (("8x", 64), ("5", None), ("-1", 64), ("0x8", 64)):
        with pytest.raises(ValueError, match="buckets is"):
            shapes_of(text, size)
    with pytest.raises(ValueError, match="a batch of 4 does not divide into the parts of 3 processes"):
        next(loader.batches(data.Arrays("a", np.zeros((4, 2, 2, 1), np.uint8)), loader.Prepare(), 4,
                            part=loader.Part(0, 3)))
