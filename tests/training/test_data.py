"""Samples of folders and files, and batches of them: what they hold, their order, and what is wrong with them."""

import gzip
import io
import json
import logging
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fdiff.training import data, loader

RANDOM = np.random.default_rng(0)
MNIST = Path(__file__).parents[2] / ".." / "shared" / "data" / "datasets" / "mnist"


def picture(size=(8, 8), mode="RGB"):
    shape = (*size[::-1], 3) if mode == "RGB" else size[::-1]
    return Image.fromarray(RANDOM.integers(0, 256, shape, np.uint8), mode)


def png(size=(8, 8)):
    file = io.BytesIO()
    picture(size).save(file, "PNG")
    return file.getvalue()


def folder_of_classes(path):
    for name, count in (("cat", 3), ("dog", 2)):
        (path / name).mkdir(parents=True)
        for i in range(count):
            picture().save(path / name / f"{i}.png")
    return path


def test_folders_of_classes(tmp_path):
    source = data.find(folder_of_classes(tmp_path))
    assert source.classes == ("cat", "dog") and len(source) == 5
    assert [source[i]["label"] for i in range(5)] == [0, 0, 0, 1, 1]
    assert source[3]["image"].size == (8, 8) and source.name(3).endswith("0.png")


def test_captions_and_labels_of_metadata(tmp_path):
    for i in range(3):
        picture().save(tmp_path / f"{i}.png")
    lines = [{"file_name": f"{i}.png", "text": f"picture {i}", "label": "ba"[i % 2]} for i in range(3)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    source = data.find(tmp_path)
    assert [(source[i]["text"], source[i]["label"]) for i in range(3)] == [
        ("picture 0", 1), ("picture 1", 0), ("picture 2", 1)]
    assert source.classes == ("a", "b")


def test_arrays_and_idx_files(tmp_path):
    images, labels = RANDOM.integers(0, 256, (4, 6, 5), np.uint8), np.array([2, 0, 1, 2])
    np.savez(tmp_path / "a.npz", labels=labels, pictures=images)
    (tmp_path / "idx").mkdir()
    for kind, head, body in (("images-idx3", [0, 0, 8, 3], images), ("labels-idx1", [0, 0, 8, 1], labels)):
        raw = bytes(head) + b"".join(side.to_bytes(4, "big") for side in body.shape) + body.astype(np.uint8).tobytes()
        (tmp_path / "idx" / f"some-{kind}-ubyte.gz").write_bytes(gzip.compress(raw))
    for source in (data.find(tmp_path / "a.npz"), data.find(tmp_path / "idx")):
        assert source.classes == ("0", "1", "2") and [source[i]["label"] for i in range(4)] == [2, 0, 1, 2]
        np.testing.assert_array_equal(source[1]["image"][..., 0], images[1])


@pytest.mark.skipif(not MNIST.exists(), reason="without the data")
def test_mnist():
    source = data.find(MNIST)
    assert len(source) == 10_000 and len(source.classes) == 10 and source[0]["label"] == 7
    batch = next(loader.batches(source, loader.Prepare((32, 32), 1, "pad"), 16))
    assert batch.arrays["image"].shape == (16, 32, 32, 1) and not batch.arrays["image"][:, :2].any()


def tar(path, members):
    with tarfile.open(path, "w") as file:
        for name, raw in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            file.addfile(member, io.BytesIO(raw))
    return path


def test_tar_files(tmp_path):
    source = data.find(tar(tmp_path / "a.tar", {
        "x/0.png": png(), "x/0.json": b'{"caption": "one"}', "x/0.cls": b"4", "x/1.png": png(), "x/1.txt": b"two",
        "x/1.cls": b"2"}))
    assert [(source[i]["text"], source[i]["label"]) for i in range(2)] == [("one", 4), ("two", 2)]
    assert source.classes == ("0", "1", "2", "3", "4") and source[1]["image"].size == (8, 8)


BAD = {
    "no pictures": lambda path: path, "not there": lambda path: path / "none",
    "no data": lambda path: file(path, "a.txt"), "no .npz": lambda path: file(path, "a.npz"),
    "no tar": lambda path: file(path, "a.tar"),
    "whose picture is not there": lambda path: tar(path / "a.tar", {"0.png": png(), "1.txt": b"two"}),
    "of float64": lambda path: saved(path, images=np.zeros((2, 4, 4))),
    "no array": lambda path: saved(path, labels=np.arange(3)),
    "labels for 2": lambda path: saved(path, images=np.zeros((2, 4, 4), np.uint8), labels=np.array([0.5, 1])),
    "3 labels for 2": lambda path: saved(path, images=np.zeros((2, 4, 4), np.uint8), labels=np.arange(3)),
    "picture 1 with -1, which is out of range": lambda path: saved(
        path, images=np.zeros((2, 4, 4), np.uint8), labels=np.array([0, -1])),
    "is not there; add": lambda path: described(path, '{"file_name": "no.png", "text": "a"}'),
    "line 1, is no JSON": lambda path: described(path, "{"), "names no picture": lambda path: described(path, ""),
    "have no label": lambda path: described(path, '{"file_name": "0.png", "label": 1}\n{"file_name": "1.png"}'),
    "beside folders": lambda path: picture().save(folder_of_classes(path) / "0.png") or path,
}


def file(path, name):
    (path / name).write_bytes(b"something else")
    return path / name


def saved(path, **arrays):
    np.savez(path / "a.npz", **arrays)
    return path / "a.npz"


def described(path, text):
    for i in range(2):
        picture().save(path / f"{i}.png")
    (path / "metadata.jsonl").write_text(text)
    return path


@pytest.mark.parametrize("words", BAD)
def test_data_that_is_none(tmp_path, words):
    with pytest.raises(ValueError, match=words):
        data.find(BAD[words](tmp_path))


@pytest.mark.parametrize("fit", loader.FITS)
def test_pictures_are_brought_to_a_size(fit):
    prepare = loader.Prepare((6, 4), 3, fit)
    for size in ((4, 6), (8, 6), (3, 20), (2, 2), (30, 7)):
        assert prepare({"image": picture(size)}, RANDOM)["image"].shape == (6, 4, 3)
    kept = picture((4, 6))
    np.testing.assert_array_equal(prepare({"image": kept}, RANDOM)["image"], np.asarray(kept))


def test_padding_scales_down_only_and_keeps_the_ground():
    small = np.full((2, 2), 200, np.uint8)
    laid = loader.Prepare((4, 6), 1, "pad")({"image": small[..., None]}, RANDOM)["image"]
    assert (laid == 200).all()
    small[1, 1] = 10
    laid = loader.Prepare((4, 6), 1, "pad")({"image": small[..., None]}, RANDOM)["image"]
    assert (laid == 10).sum() == 1 and laid[2, 3] == 10


def test_flips_and_crops_are_drawn():
    wide = picture((30, 6))
    crop = loader.Prepare((6, 6), 3, "crop", random_crop=True, flip=True)
    seen = {crop({"image": wide}, np.random.default_rng(i))["image"].tobytes() for i in range(40)}
    assert len(seen) > 15
    again = [crop({"image": wide}, np.random.default_rng(5))["image"] for _ in range(2)]
    np.testing.assert_array_equal(*again)


def labels_of(source, count, **options):
    stream = loader.batches(source, loader.Prepare(), 4, **options)
    return [(batch.arrays["label"].tolist(), batch.arrays["image"][:, 0, 0, 0].tolist(), batch.taken)
            for batch, _ in zip(stream, range(count), strict=False)]


def numbered(count):
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 2, 2, 3))
    return data.Arrays("numbers", images, np.arange(count))


def test_an_epoch_has_every_sample_once_and_a_restart_goes_on():
    whole = labels_of(numbered(10), 10, seed=3)
    drawn = [label for labels, _, _ in whole for label in labels]
    assert all(sorted(drawn[i : i + 10]) == list(range(10)) for i in range(0, 40, 10))
    assert drawn[:10] != drawn[10:20] and labels_of(numbered(10), 10, seed=4) != whole
    assert labels_of(numbered(10), 7, seed=3, taken=whole[2][2]) == whole[3:]


def test_worker_processes_give_the_same_order(tmp_path):
    source = data.find(folder_of_classes(tmp_path))
    assert labels_of(source, 4, workers=2) == labels_of(source, 4)


def test_what_cannot_be_read_is_named_and_passed_over(tmp_path, caplog):
    folder_of_classes(tmp_path)
    (tmp_path / "cat" / "1.png").write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING):
        drawn = labels_of(data.find(tmp_path), 8)
    assert len(caplog.records) == 1 and "cat/1.png" in caplog.text
    assert drawn[-1][2] == 32 and labels_of(data.find(tmp_path), 3, taken=drawn[4][2]) == drawn[5:]


def test_too_many_that_cannot_be_read_stop_it(tmp_path):
    (tmp_path / "a").mkdir()
    for i in range(30):
        (tmp_path / "a" / f"{i}.png").write_bytes(png() if i > 20 else b"no picture")
    with pytest.raises(ValueError, match="11 of 30 samples cannot be read"):
        labels_of(data.find(tmp_path), 20)


def test_pictures_of_several_sizes(tmp_path):
    for i in range(4):
        picture((8 + i, 8)).save(tmp_path / f"{i}.png")
    with pytest.raises(ValueError, match="several sizes, such as 8x8 and 8x9; give --size"):
        next(loader.batches(data.find(tmp_path), loader.Prepare(), 4))


@pytest.mark.parity
def test_what_the_datasets_library_saved(tmp_path):
    """Of pictures and of captions, one or several of each."""
    datasets = pytest.importorskip("datasets")
    from fdiff.training.tasks.material import captions

    kinds = datasets.ClassLabel(names=["cat", "dog"])
    features = {"photo": datasets.Image(), "caption": [datasets.Value("string")], "kind": kinds}
    said = {"photo": [picture(), picture()], "caption": [["a cat", "it"], ["a dog"]], "kind": [0, 1]}
    datasets.Dataset.from_dict(said, datasets.Features(features)).save_to_disk(tmp_path / "several")
    source = data.find(tmp_path / "several")
    assert source.classes == ("cat", "dog")
    assert data.texts(source) == captions(source, "") == [["a cat", "it"], ["a dog"]]
    assert source[1]["text"] == "a dog" and source[1]["label"] == 1
    np.testing.assert_array_equal(np.asarray(source[1]["image"]), np.asarray(said["photo"][1]))
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    one = {"image": said["photo"], "text": ["a cat", None]}
    datasets.Dataset.from_dict(one, features).save_to_disk(tmp_path / "one")
    assert captions(data.find(tmp_path / "one"), "a pet") == [["a cat"], ["a pet"]]
    with pytest.raises(ValueError, match="row 1 has no caption"):
        captions(data.find(tmp_path / "one"), "")
