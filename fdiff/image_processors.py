"""Pictures as CLIP and Qwen2.5-VL see them: the `feature_extractor` and the `processor` of a pipeline."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from fdiff import hub, images, registry
from fdiff.tokenizers import Qwen2Tokenizer

FILE = "preprocessor_config.json"


@registry.register
@dataclasses.dataclass(frozen=True)
class CLIPImageProcessor(hub.Pretrained):
    """Pictures of any size -> (b, crop_size, crop_size, 3) float32.

    The shorter side becomes `size` (bicubic), the middle square is kept, and (x - image_mean) / image_std is
    taken of its values in [0, 1].
    """

    size: int = 224
    crop_size: int = 224
    resample: int = 3  # PIL's number for bicubic
    image_mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, file: str | Path = FILE) -> Self:
        """Read a preprocessor_config.json; ValueError for one that leaves a step out."""
        steps = ("do_resize", "do_center_crop", "do_normalize", "do_rescale")
        for step in steps:
            if not config.get(step, True):
                raise ValueError(f"{file} sets {step} to false, which CLIPImageProcessor does not support.")
        fields = {field.name for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in config.items() if key in fields
        }
        for key in ("size", "crop_size"):  # a number once, and a dictionary since 2022
            if isinstance(values.get(key), Mapping):
                sides = set(values[key].values())
                if len(sides) != 1:
                    raise ValueError(f"{file} sets {key} to {dict(values[key])}; CLIPImageProcessor makes squares.")
                values[key] = sides.pop()
        return cls(**values)

    @classmethod
    def from_source(cls, place: hub.Source) -> Self:
        """Read the preprocessor_config.json of a folder or a repository."""
        path = hub.fetch(place, FILE)
        return cls.from_config(hub.read_json(path), file=path)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write preprocessor_config.json."""
        config = {
            **dataclasses.asdict(self),
            "size": {"shortest_edge": self.size},
            "crop_size": {"height": self.crop_size, "width": self.crop_size},
            "image_processor_type": type(self).__name__,
        }
        with hub.staged(folder) as temporary:
            hub.write_json(temporary / FILE, config)

    def __call__(self, pictures: Any) -> np.ndarray:
        """A PIL image, several, or an array (b, h, w, 3) in [-1, 1]."""
        if isinstance(pictures, list | tuple):
            listed = list(pictures)
        else:
            listed = images.to_pil(pictures) if hasattr(pictures, "shape") else [pictures]
        square = np.stack([self._square(images.in_mode(picture, "RGB")) for picture in listed])
        return ((square / 255 - self.image_mean) / self.image_std).astype(np.float32)

    def _square(self, picture: Any) -> np.ndarray:
        short = min(picture.size)
        width, height = (self.size if side == short else int(self.size * side / short) for side in picture.size)
        picture = picture.resize((width, height), self.resample)
        left, top = (width - self.crop_size) // 2, (height - self.crop_size) // 2
        return np.asarray(picture.crop((left, top, left + self.crop_size, top + self.crop_size)), np.float64)


CLIPFeatureExtractor = CLIPImageProcessor  # its name before 2022
OTHERS = "CLIPFeatureExtractor", "CLIPImageProcessorFast", "CLIPImageProcessorPil"  # the last two of transformers 5
registry.register(CLIPImageProcessor, *OTHERS)


@registry.register
@dataclasses.dataclass(frozen=True)
class Qwen2VLProcessor(hub.Pretrained):
    """Pictures as Qwen2.5-VL sees them, and its tokenizer, which is in the same folder.

    A PIL image of any size -> (1, h, w, 3) float32: h and w are multiples of patch_size merge_size, h w is from
    min_pixels to max_pixels, and (x - image_mean) / image_std is taken of its values in [0, 1].
    """

    tokenizer: Qwen2Tokenizer
    patch_size: int = 14
    merge_size: int = 2
    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280
    resample: int = 3  # PIL's number for bicubic
    image_mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    @classmethod
    def from_source(cls, place: hub.Source) -> Self:
        """Read the tokenizer and the preprocessor_config.json of a folder or a repository."""
        path = hub.fetch(place, FILE)
        config = hub.read_json(path)
        fields = {field.name for field in dataclasses.fields(cls)} - {"tokenizer"}
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in config.items()
        }
        values |= dict(zip(("min_pixels", "max_pixels"), pixels_of(config), strict=True))
        given: dict[str, Any] = {key: value for key, value in values.items() if key in fields and value is not None}
        return cls(Qwen2Tokenizer.from_source(place), **given)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write preprocessor_config.json and the files of the tokenizer."""
        options = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        options.pop("tokenizer")
        size = {"shortest_edge": options["min_pixels"], "longest_edge": options["max_pixels"]}
        kinds = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": type(self).__name__}
        self.tokenizer.save_pretrained(folder)
        hub.write_json(Path(folder) / FILE, {**options, "size": size, **kinds})

    def __call__(self, picture: Any) -> np.ndarray:
        """A PIL image as an array. Raises ValueError for one that is 200 times as long as wide."""
        step, (width, height) = self.patch_size * self.merge_size, picture.size
        if max(width, height) > 200 * min(width, height):
            raise ValueError(f"a picture of {width} x {height} pixels is too long to be seen; cut it")
        sides = [round(side / step) * step for side in (width, height)]
        if sides[0] * sides[1] > self.max_pixels:
            scale = math.sqrt(self.max_pixels / (width * height))
            sides = [max(step, math.floor(side * scale / step) * step) for side in (width, height)]
        elif sides[0] * sides[1] < self.min_pixels:
            scale = math.sqrt(self.min_pixels / (width * height))
            sides = [math.ceil(side * scale / step) * step for side in (width, height)]
        array = np.asarray(images.in_mode(picture, "RGB").resize((sides[0], sides[1]), self.resample), np.float64)
        return ((array / 255 - self.image_mean) / self.image_std).astype(np.float32)[None]

    def grid(self, seen: np.ndarray) -> tuple[int, int]:
        """How many rows and columns of tokens stand for what `__call__` gives."""
        step = self.patch_size * self.merge_size
        return seen.shape[1] // step, seen.shape[2] // step


def pixels_of(config: Mapping[str, Any]) -> tuple[Any, Any]:
    """How few and how many pixels a preprocessor_config.json says, by either of its names; None where by none."""
    size = config.get("size") or {}
    own = config.get("min_pixels"), config.get("max_pixels")
    least, most = own[0] or size.get("shortest_edge"), own[1] or size.get("longest_edge")
    return least, most


registry.register(Qwen2VLProcessor, "Qwen2_5_VLProcessor")
