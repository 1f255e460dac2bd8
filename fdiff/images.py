"""Pictures at the door: arrays in [-1, 1] inside, PIL images and uint8 outside."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fdiff import hub

if TYPE_CHECKING:
    from PIL import Image

OUTPUT_TYPES = ("pil", "np", "array")


def to_uint8(images: Any) -> np.ndarray:
    """(..., h, w, c) in [-1, 1] to uint8, round((x + 1) / 2 * 255). Raises ValueError for what is not a number."""
    images = np.asarray(images, np.float32)
    if not np.isfinite(images).all():
        raise ValueError(
            "the network gave values that are not finite; compute in float32 or bfloat16 instead of float16, "
            "or lower the guidance scale"
        )
    return np.round(np.clip(images / 2 + 0.5, 0, 1) * 255).astype(np.uint8)


def to_pil(images: Any) -> list[Image.Image]:
    """(b, h, w, c) in [-1, 1], one, three or four channels, to PIL images."""
    from PIL import Image

    return [Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image) for image in to_uint8(images)]


def from_pil(images: Image.Image | Sequence[Image.Image], mode: str = "RGB") -> np.ndarray:
    """PIL images, all of one size, to (b, h, w, c) float32 in [-1, 1]."""
    listed: list[Any] = list(images) if isinstance(images, list | tuple) else [images]
    arrays = [np.asarray(in_mode(image, mode), np.float32) for image in listed]
    if len({array.shape for array in arrays}) > 1:
        raise ValueError("the images of a batch must have one size; resize them first")
    stacked = np.stack(arrays)
    return (stacked if stacked.ndim == 4 else stacked[..., None]) / 127.5 - 1


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """A picture in a mode of 8 bits, white for white: PIL cuts those of 16 and 32 bits and of floats off at 255.

    White is 65535 where the numbers are of 16 bits, or whole and beyond 255, and 1 where they are floats of 1 at most.
    Raises ValueError for numbers beyond that.
    """
    if image.mode != "F" and not image.mode.startswith("I"):
        return image.convert(mode)
    from PIL import Image

    numbers = np.asarray(image, np.float64)
    low, high = (numbers.min(), numbers.max()) if numbers.size else (0.0, 0.0)
    wide = image.mode.startswith("I;16") or (image.mode == "I" and high > 255)
    white = 65535 if wide else 1 if image.mode == "F" and high <= 1 else 255
    if not 0 <= low <= high <= white:  # false also of what is not a number
        raise ValueError(f"a picture of mode {image.mode} holds numbers from {low:g} to {high:g}; convert it to {mode}")
    return Image.fromarray(np.round(numbers / white * 255).astype(np.uint8)).convert(mode)


def to_output(images: Any, output_type: str) -> Any:
    """(b, h, w, c) in [-1, 1] as `pil` images, `np` in [0, 1], or the `array` as it is."""
    check_output_type(output_type)
    if output_type == "pil":
        return to_pil(images)
    return np.clip(np.asarray(images, np.float32) / 2 + 0.5, 0, 1) if output_type == "np" else images


def check_output_type(output_type: str) -> None:
    """Raise ValueError unless it is one of pil, np and array."""
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type is {output_type!r}; it can be {', '.join(OUTPUT_TYPES)}")


def grid(images: Sequence[Image.Image], columns: int | None = None, gap: int = 1) -> Image.Image:
    """One sheet of all the images, near square unless `columns` is given."""
    from PIL import Image

    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    width, height = images[0].size
    sheet = Image.new(images[0].mode, (columns * (width + gap) - gap, rows * (height + gap) - gap))
    for i, image in enumerate(images):
        sheet.paste(image, ((i % columns) * (width + gap), (i // columns) * (height + gap)))
    return sheet


def enlarge(image: Image.Image, least: int) -> Image.Image:
    """A small image magnified by a whole factor, its pixels kept sharp, to at least that height and width."""
    factor = math.ceil(least / min(image.size))
    return image.resize((image.width * factor, image.height * factor), 0) if factor > 1 else image


def save(image: Image.Image, path: str | Path) -> None:
    """Write a picture, moved into place when it is whole."""
    with hub.replacing(Path(path)) as part:
        image.save(part, format=picture_format(path))


def save_all(images: Sequence[Image.Image], folder: str | Path) -> None:
    """Write 00000.png and so on into a folder, which appear together."""
    with hub.staged(folder) as temporary:
        for i, image in enumerate(images):
            image.save(temporary / f"{i:05d}.png")


def save_animation(frames: Sequence[Image.Image], path: str | Path, seconds: float = 3.0) -> None:
    """Write a GIF that runs once through the frames, rests on the last, and begins again."""
    each = max(20, int(1000 * seconds / len(frames)))
    with hub.replacing(Path(path)) as part:
        frames[0].save(
            part, format="GIF", save_all=True, append_images=list(frames[1:]), loop=0,
            duration=[each] * (len(frames) - 1) + [1500],
        )


def picture_format(path: str | Path) -> str:
    """The format that the ending of a file name asks for. Raises ValueError for an ending that no picture has."""
    from PIL import Image

    found = Image.registered_extensions().get(Path(path).suffix.lower(), "none")
    try:  # some formats are only read, and some need a library that is not there
        Image.new("RGB", (1, 1)).save(io.BytesIO(), format=found)
    except (KeyError, OSError, ValueError):
        raise ValueError(f"{path} does not end like a picture; call it something.png") from None
    return found
