"""Pictures as CLIP's vision tower reads them: the `feature_extractor` of a pipeline."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from fdiff import hub, images, registry

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
