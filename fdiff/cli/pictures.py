"""Pictures that the command line names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def opening(file: str) -> Iterator[None]:
    """Within, what PIL says of a file that is no picture becomes a sentence, a ValueError."""
    from PIL import Image

    try:
        yield
    except FileNotFoundError:
        raise ValueError(f"{file} is not there; check its name") from None
    except Image.DecompressionBombError:
        raise ValueError(f"{file} is too large a picture; make it smaller") from None
    except (OSError, SyntaxError):  # of Pillow, for what it does not know or finds cut short or broken
        raise ValueError(f"{file} is not a picture, or is damaged; give a .png or .jpg") from None


def open_picture(file: str) -> Any:
    """A picture. Raises ValueError for a file that is none."""
    from PIL import Image, ImageOps

    with opening(file):
        picture = Image.open(file)
        picture.load()
        return ImageOps.exif_transpose(picture)  # as every viewer turns it
