"""Samples to train on: folders of pictures, arrays in .npz and idx files, tar files and data sets of the Hub."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fdiff.training.molecule_data import holds_molecules, open_molecules

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
METADATA = "metadata.jsonl"
TEXTS = ("text", "caption", "prompt")
STEERING = "conditioning_image"
MOST_CLASSES = 10_000  # where there are fewer pictures: networks keep something for each class up to the highest


class Source(Protocol):
    """Samples by number: mappings of "image", PIL's or uint8 (h, w, c), and "label" or "text" where there are some.

    "conditioning_image", PIL's or the file of one, is what steers the drawing of the picture.

    `classes` are the names of labels, empty where there are none. `name` of a sample is for messages; a sample that
    cannot be read raises OSError or ValueError.
    """

    @property
    def classes(self) -> tuple[str, ...]: ...  # noqa: D102
    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> Mapping[str, Any]: ...
    def name(self, i: int) -> str: ...  # noqa: D102


@dataclasses.dataclass(frozen=True)
class Files:
    """Pictures in files, `facts` with the label or text of each."""

    paths: tuple[Path, ...]
    facts: tuple[Mapping[str, Any], ...]
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Mapping[str, Any]:
        return {"image": opened(self.paths[i].read_bytes()), **self.facts[i]}

    def size(self, i: int) -> tuple[int, int]:
        """(width, height), from the head of the file."""
        return _size(self.paths[i])

    def name(self, i: int) -> str:
        """The file's."""
        return str(self.paths[i])


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """Pictures in one array (n, h, w, c), bytes, with labels (n,) if any."""

    file: str
    images: np.ndarray
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Mapping[str, Any]:
        sample: dict[str, Any] = {"image": self.images[i]}
        return sample if self.labels is None else {**sample, "label": int(self.labels[i])}

    def name(self, i: int) -> str:
        """The file and the number."""
        return f"picture {i} of {self.file}"


@dataclasses.dataclass(frozen=True)
class Tar:
    """Pictures in a tar file, as WebDataset lays them: 0001.png beside 0001.txt, 0001.cls or 0001.json."""

    file: Path
    places: tuple[tuple[str, int, int], ...]  # of each picture: its name, and where its bytes begin and how many
    facts: tuple[Mapping[str, Any], ...]
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int) -> Mapping[str, Any]:
        return {"image": opened(self._bytes(i)), **self.facts[i]}

    def size(self, i: int) -> tuple[int, int]:
        """(width, height), from the head of the member."""
        return _size(io.BytesIO(self._bytes(i)))

    def _bytes(self, i: int) -> bytes:
        _, start, count = self.places[i]
        with self.file.open("rb") as file:
            file.seek(start)
            return file.read(count)

    def name(self, i: int) -> str:
        """The member's and the file's."""
        return f"{self.places[i][0]} in {self.file}"


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """A data set of the `datasets` library, of columns "image" and "label" or "text" under their usual names.

    A text may be a list, of which `texts` gives all.
    """

    rows: Any
    columns: Mapping[str, str]
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Mapping[str, Any]:
        row = self.rows[i]
        found = {kind: row[column] for kind, column in self.columns.items()}
        if isinstance(found.get("text"), list):  # of several captions, as COCO has
            found["text"] = found["text"][0]
        return found

    def name(self, i: int) -> str:
        """The number."""
        return f"row {i}"


def find(place: str | Path) -> Source:
    """The samples of a folder or file, told by what it is.

    A folder holds pictures beside a metadata.jsonl (file_name, text or label, conditioning_image), a folder a class,
    idx files such as MNIST's, what the `datasets` library saved, or pictures alone. A file is .npz (images, and labels
    if any), .tar, or of molecules (see `fdiff.molecules.read`).

    Raises ValueError for a place that is not there or holds no pictures, and whatever does not fit in it.
    """
    path = Path(place)
    if path.is_dir():
        if (path / "dataset_info.json").is_file() and (path / "state.json").is_file():
            return _saved_dataset(path)
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in PICTURES)
        if (path / METADATA).is_file():
            return _described(path, files)
        found = sorted(path.glob("*images*idx3*"))
        if found:
            return _idx(found[0])
        if not files:
            raise ValueError(f"{path} holds no pictures; it must hold {', '.join(PICTURES[:3])} files, metadata.jsonl "
                             "or a folder for each class")
        return _by_folder(path, files)
    if not path.is_file():
        raise ValueError(f"{path} is not there; give a folder of pictures, an .npz or a .tar file")
    if holds_molecules(path):
        return open_molecules(path)
    if path.suffix == ".npz":
        return _npz(path)
    if path.suffix == ".tar":
        return _tar(path)
    raise ValueError(f"{path} is no data; give a folder of pictures, an .npz or a .tar file")


def of_dataset(rows: Any) -> Rows:
    """A data set of the `datasets` library as samples. Raises ValueError for one without a column of pictures."""
    columns: dict[str, str] = {}
    for name, feature in rows.features.items():
        kind = type(feature).__name__
        if kind == "Image" and name == STEERING:
            columns[STEERING] = name
        elif kind == "Image":
            columns.setdefault("image", name)
        elif kind == "ClassLabel":
            columns.setdefault("label", name)
        elif name in TEXTS:
            columns.setdefault("text", name)
    if "image" not in columns:
        raise ValueError(f"the data set has the columns {', '.join(rows.features)}; one of them must be of pictures")
    label = columns.get("label")
    return Rows(rows, columns, tuple(rows.features[label].names) if label else ())


def _saved_dataset(path: Path) -> Rows:
    if util.find_spec("datasets") is None:
        raise ValueError(f"{path} was saved by the datasets library, which is not installed; pip install datasets")
    from datasets import load_from_disk

    return of_dataset(load_from_disk(str(path)))


def texts(source: Source) -> list[str | list[str] | None]:
    """What is said of each sample, in several ways where it is a list, None of those of which nothing is said.

    Pictures are read only where it takes that.
    """
    if isinstance(source, Files | Tar):
        return [fact.get("text") for fact in source.facts]
    if isinstance(source, Arrays):
        return [None] * len(source)
    if isinstance(source, Rows):
        column = source.columns.get("text")
        return list(source.rows[column]) if column else [None] * len(source)
    return [source[i].get("text") for i in range(len(source))]


def steers(source: Source) -> bool:
    """Whether each sample has a picture that steers."""
    if isinstance(source, Files | Tar):
        return all(STEERING in fact for fact in source.facts)
    return STEERING in source.columns if isinstance(source, Rows) else False


def _by_folder(path: Path, files: Sequence[Path]) -> Files:
    """Pictures whose classes are the folders that they are in; none where all lie in `path` itself."""
    folders = [file.relative_to(path).parts[0] if file.parent != path else "" for file in files]
    classes = tuple(sorted({folder for folder in folders if folder}))
    if not classes:
        return Files(tuple(files), ({},) * len(files))
    if "" in folders:
        raise ValueError(f"{files[folders.index('')]} lies beside folders of classes; move it into one of them")
    return Files(tuple(files), tuple({"label": classes.index(folder)} for folder in folders), classes)


def _described(path: Path, files: Sequence[Path]) -> Files:
    """Pictures with what metadata.jsonl says of each; those that it does not name are left out."""
    there, names, facts = set(files), [], []
    for number, line in enumerate((path / METADATA).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
            file = path / said["file_name"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path / METADATA}, line {number}, is no JSON with a file_name; correct it") from None
        if file not in there:
            raise ValueError(f"{path / METADATA}, line {number}, names {said['file_name']}, which is not there; "
                             "add the picture or remove the line")
        names.append(file)
        facts.append(_facts(said) | _steering(path, said, number))
    if not names:
        raise ValueError(f"{path / METADATA} names no picture; add lines with file_name and text")
    return _with_classes(Files, (tuple(names),), facts)


def _steering(path: Path, said: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The file of the picture that steers, if there is one."""
    if STEERING not in said:
        return {}
    file = path / str(said[STEERING])
    if not file.is_file():
        raise ValueError(f"{path / METADATA}, line {number}, names {said[STEERING]}, which is not there; add it")
    return {STEERING: file}


def _facts(said: Mapping[str, Any]) -> dict[str, Any]:
    """The text and the label of a record."""
    texts = [said[name] for name in TEXTS if isinstance(said.get(name), str)]
    found: dict[str, Any] = {"text": texts[0]} if texts else {}
    label = said.get("label", said.get("cls"))
    return found if label is None else {**found, "label": label}


def _with_classes(cls: Any, where: tuple[Any, ...], facts: list[dict[str, Any]]) -> Any:
    """The source with labels as numbers, and their names."""
    labels = {fact["label"] for fact in facts if "label" in fact}
    if not labels:
        return cls(*where, tuple(facts))
    numbers = all(isinstance(label, int) for label in labels)
    if numbers:
        _check_labels(where[0] if cls is Tar else where[0][0].parent, [fact.get("label", 0) for fact in facts])
    classes = [str(i) for i in range(max(labels) + 1)] if numbers else sorted(map(str, labels))
    given = [{**fact, "label": classes.index(str(fact["label"]))} for fact in facts if "label" in fact]
    if len(given) < len(facts):
        raise ValueError(f"{len(facts) - len(given)} of {len(facts)} pictures have no label; give all one, or none")
    return cls(*where, tuple(given), tuple(classes))


def _check_labels(place: Any, labels: Sequence[int]) -> None:
    """Raise ValueError for numbers that name no classes: there are more than pictures by far, or negative ones."""
    most = max(len(labels), MOST_CLASSES)
    for i, label in enumerate(labels):
        if not 0 <= label < most:
            raise ValueError(f"{place} labels picture {i} with {label}, which is out of range; number the classes from "
                             f"0 to {most - 1} at most")


def _npz(path: Path) -> Arrays:
    """The first array of pictures, by its shape, and "labels" or else the first of as many."""
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise ValueError(f"{path} is no .npz file or is damaged; make it with numpy.savez") from None
    pictures = [name for name, array in arrays.items() if array.ndim in (3, 4)]
    if not pictures:
        raise ValueError(f"{path} holds no array (n, h, w, c) of pictures; it holds {', '.join(arrays) or 'nothing'}")
    images = arrays[pictures[0]]
    as_many = next((array for array in arrays.values() if array.shape == images.shape[:1]), None)
    return _arrays(path, images, arrays.get("labels", as_many))


def _idx(path: Path) -> Arrays:
    """MNIST's own files: the labels' name has labels and idx1 for images and idx3."""
    labels = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    return _arrays(path, _read_idx(path), _read_idx(labels) if labels.is_file() else None)


def _read_idx(path: Path) -> np.ndarray:
    raw = path.read_bytes()
    try:
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(raw[3])]
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)
    except (OSError, EOFError, IndexError, ValueError):
        raise ValueError(f"{path} is no idx file or is damaged; fetch it again") from None


def _arrays(path: Path, images: np.ndarray, labels: np.ndarray | None) -> Arrays:
    if images.dtype != np.uint8:
        raise ValueError(f"{path} holds pictures of {images.dtype}; make them uint8, from 0 to 255")
    images = images[..., None] if images.ndim == 3 else images
    if images.shape[-1] not in (1, 3):
        raise ValueError(f"{path} holds pictures of shape {images.shape[1:]}; make it (h, w, 1) or (h, w, 3)")
    if labels is None:
        return Arrays(str(path), images)
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(f"{path} holds {labels.size} labels for {len(images)} pictures; give each a whole number "
                         "from 0 on")
    _check_labels(path, labels.tolist())
    return Arrays(str(path), images, labels, tuple(str(i) for i in range(int(labels.max(initial=0)) + 1)))


def _tar(path: Path) -> Tar:
    pictures: dict[str, tuple[str, int, int]] = {}
    said: dict[str, dict[str, Any]] = {}
    try:
        with tarfile.open(path) as file:
            for member in file:
                stem, _, ending = member.name.rpartition(".")
                if not member.isfile() or not stem:
                    continue
                if f".{ending.lower()}" in PICTURES:
                    pictures[stem] = (member.name, member.offset_data, member.size)
                elif ending in ("txt", "cls", "json"):
                    text = file.extractfile(member).read().decode("utf-8")  # type: ignore[union-attr]
                    said.setdefault(stem, {}).update(_beside(ending, text))
    except (tarfile.TarError, OSError, ValueError) as error:
        raise ValueError(f"{path} is no tar file of pictures or is damaged ({error})") from None
    if not pictures:
        raise ValueError(f"{path} holds no pictures; it must hold {', '.join(PICTURES[:3])} files")
    lonely = sorted(set(said) - set(pictures))
    if lonely:
        raise ValueError(f"{path} says something of {lonely[0]}, whose picture is not there; add it")
    return _with_classes(Tar, (path, tuple(pictures.values())), [_facts(said.get(stem, {})) for stem in pictures])


def _beside(ending: str, text: str) -> dict[str, Any]:
    """What a file beside a picture says of it."""
    if ending == "json":
        return dict(json.loads(text))
    return {"text": text} if ending == "txt" else {"label": int(text) if text.strip().isdigit() else text.strip()}


def _size(file: Any) -> tuple[int, int]:
    """(width, height) of a picture, turned as its camera says, from its head alone."""
    from PIL import ExifTags, Image

    with Image.open(file) as picture:
        turned = picture.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        return picture.size[::-1] if turned else picture.size


def opened(raw: bytes) -> Any:
    """The picture in these bytes, turned as its camera says, its pixels read."""
    from PIL import Image, ImageOps

    picture = Image.open(io.BytesIO(raw))
    return ImageOps.exif_transpose(picture)
