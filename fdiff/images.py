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


def grid(
    images: Sequence[Image.Image], columns: int | None = None, gap: int = 1, labels: Sequence[str] | None = None
) -> Image.Image:
    """One sheet of all the images, near square unless `columns` is given.

    Args:
        images: PIL images; the largest gives each its place.
        columns: how many beside each other.
        gap: pixels between two of them, grey, or white where there are labels.
        labels: a line below each image, cut to its width.

    Raises ValueError for no images, and another number of labels than of images.
    """
    from PIL import Image, ImageDraw, ImageFont

    if not images or (labels is not None and len(labels) != len(images)):
        raise ValueError(f"a sheet of {len(images)} images{f' and {len(labels)} labels' if labels else ''} cannot be "
                         "laid; pass one image or more, and one label for each")
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    width, height = (max(side) for side in zip(*(image.size for image in images), strict=True))
    font: Any = ImageFont.load_default(max(10, min(width // 6, 24))) if labels else None
    line = math.ceil(sum(font.getmetrics()) * 1.1) if labels else 0
    mode = images[0].mode if len({image.mode for image in images}) == 1 else "RGB"
    extent = (columns * (width + gap) - gap, rows * (height + line + gap) - gap)
    sheet = Image.new(mode, extent, "white" if labels else "grey")
    for i, image in enumerate(images):
        left, top = (i % columns) * (width + gap), (i // columns) * (height + line + gap)
        sheet.paste(image, (left, top))
        if labels:
            text = labels[i]
            while text and font.getlength(text) > width:
                text = text[:-1]
            place = (left + (width - font.getlength(text)) / 2, top + height)
            ImageDraw.Draw(sheet).text(place, text, fill="black", font=font)
    return sheet


def enlarge(image: Image.Image, least: int) -> Image.Image:
    """A small image magnified by a whole factor, its pixels kept sharp, to at least that height and width."""
    factor = math.ceil(least / min(image.size))
    return image.resize((image.width * factor, image.height * factor), 0) if factor > 1 else image


def save(image: Image.Image, path: str | Path, text: str | None = None) -> None:
    """Write a picture, moved into place when it is whole.

    text: how it was drawn, see `fdiff.picture_text`, which `read_text` and other tools read: a chunk "parameters" of
    PNG, the comment of GIF, EXIF's UserComment in JPEG and WebP; other formats keep none. Raises ValueError for one
    that is too long for the format.
    """
    kept = text_options(path, text)
    with hub.replacing(Path(path)) as part:
        image.save(part, format=picture_format(path), **kept)


def save_all(images: Sequence[Image.Image], folder: str | Path, texts: Sequence[str] | None = None) -> None:
    """Write 00000.png and so on into a folder, which appear together, each with its text as in `save`."""
    with hub.staged(folder) as temporary:
        for i, image in enumerate(images):
            save(image, temporary / f"{i:05d}.png", texts[i] if texts else None)


def save_animation(
    frames: Sequence[Image.Image], path: str | Path, seconds: float = 3.0, text: str | None = None
) -> None:
    """Write a GIF that runs once through the frames, rests on the last, and begins again; its text as in `save`."""
    each = max(20, int(1000 * seconds / len(frames)))
    with hub.replacing(Path(path)) as part:
        frames[0].save(
            part, format="GIF", save_all=True, append_images=list(frames[1:]), loop=0,
            duration=[each] * (len(frames) - 1) + [1500], **text_options(path, text),
        )


EXIF, USER_COMMENT = 0x8769, 0x9286
LONGEST_EXIF = 65_000  # bytes: a segment of JPEG holds 65,533


def text_options(path: str | Path, text: str | None) -> dict[str, Any]:
    """How PIL's `save` is told of the text, by the ending of the file. Raises ValueError for one that is too long."""
    from PIL import Image, PngImagePlugin

    kind = picture_format(path)
    if text is None:
        return {}
    if kind == "PNG":
        chunks = PngImagePlugin.PngInfo()
        chunks.add_text("parameters", text)
        return {"pnginfo": chunks}
    if kind == "GIF":
        return {"comment": text.encode()}
    if kind in ("JPEG", "WEBP"):
        data = b"UNICODE\0" + text.encode("utf-16-be")
        if len(data) > LONGEST_EXIF:
            raise ValueError(f"{path} cannot hold a text of {len(text):,} characters; call it something.png")
        exif = Image.Exif()
        exif.endian = ">"  # as the text is: some readers take it to be like that, others like the rest
        exif.get_ifd(EXIF)[USER_COMMENT] = data
        return {"exif": exif}
    return {}


def read_text(path: str | Path) -> str | None:
    """What a picture file says of how it was drawn, see `save`; None where it says nothing.

    Raises OSError for a file that is no picture or is not there.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()  # PNG may have it behind the picture
            comment = image.getexif().get_ifd(EXIF).get(USER_COMMENT)
            found = image.info.get("parameters") or comment or image.info.get("comment")
    except (SyntaxError, ValueError, Image.DecompressionBombError) as error:  # of Pillow, for what is broken or absurd
        raise OSError(f"{path} is damaged ({error}); choose another picture") from error
    return _decoded(found) if isinstance(found, bytes) else found if isinstance(found, str) else None


def _decoded(data: bytes) -> str:
    """A comment, by the name of its code if it begins with one."""
    name, rest = data[:8], data[8:]
    if name == b"UNICODE\0":
        high_first = rest[::2].count(0) >= rest[1::2].count(0)
        return rest.decode("utf-16-be" if high_first else "utf-16-le", "replace")
    return (rest if name == b"ASCII\0\0\0" else data).decode("utf-8", "replace")


def picture_format(path: str | Path) -> str:
    """The format that the ending of a file name asks for. Raises ValueError for an ending that no picture has."""
    from PIL import Image

    found = Image.registered_extensions().get(Path(path).suffix.lower(), "none")
    try:  # some formats are only read, and some need a library that is not there
        Image.new("RGB", (1, 1)).save(io.BytesIO(), format=found)
    except (KeyError, OSError, ValueError):
        raise ValueError(f"{path} does not end like a picture; call it something.png") from None
    return found
