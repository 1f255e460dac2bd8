"""Only the part around a mask, at full size, and back into the picture (padding_mask_crop)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fdiff.images import in_mode
from fdiff.models import AutoencoderKL, UNet2DConditionModel
from fdiff.pipelines import latent
from fdiff.pipelines.inputs import LANCZOS
from fdiff.pipelines.requests import Pictures, Pixels, Size

Box = tuple[int, int, int, int]  # left, top, right, bottom


class Cropped(NamedTuple):
    """The part of each picture at the size to draw, and how what is drawn is put back."""

    image: Pictures
    mask_image: Pictures
    height: Pixels
    width: Pixels
    control_image: Pictures
    overlay: Callable[[Any], list[Any]] | None


def cropped(
    vae: AutoencoderKL, unet: UNet2DConditionModel, image: Pictures, mask_image: Pictures, height: Pixels,
    width: Pixels, padding_mask_crop: int | None, output_type: str, control_image: Pictures = None,
) -> Cropped:  # fmt: skip
    """Stage: with padding_mask_crop, the box around the mask and so many pixels beside it, at the size to draw.

    Raises ValueError for pictures that are not PIL's or of two sizes, another output, and a mask that is black.
    """
    if padding_mask_crop is None:
        return Cropped(image, mask_image, height, width, control_image, None)
    factor = latent.factor_of(vae)

    def sized(height: Pixels, width: Pixels) -> Size:
        high, wide = latent.sized(vae, unet, height, width).size
        return high * factor, wide * factor

    return cut_out(
        sized, max(8, factor), image, mask_image, height, width, padding_mask_crop, output_type, control_image
    )


def cut_out(
    sized: Callable[[Pixels, Pixels], Size], step: int, image: Pictures, mask_image: Pictures, height: Pixels,
    width: Pixels, padding_mask_crop: int, output_type: str, control_image: Pictures = None,
) -> Cropped:  # fmt: skip
    """The same, given the size to draw, in pixels and of whole multiples of `step`, of one that is asked for.

    Raises ValueError as `cropped` does.
    """
    several = control_image if isinstance(control_image, list | tuple) else [control_image]
    controls = [] if control_image is None else list(several)
    if not all(hasattr(one, "convert") for one in (image, mask_image, *controls)) or output_type != "pil":
        raise ValueError("padding_mask_crop works on PIL images, one picture and one mask, and with output_type pil")
    if not isinstance(padding_mask_crop, int | np.integer) or padding_mask_crop < 0:
        raise ValueError(f"padding_mask_crop is {padding_mask_crop!r}; it must be a whole number of pixels, 0 or more")
    if any(one.size != image.size for one in (mask_image, *controls)):
        raise ValueError("padding_mask_crop needs pictures of one size; resize the mask, or the pictures that steer")
    if controls:  # the size of which is that of the picture to draw
        height, width = (side or own - own % step for side, own in
                         zip((height, width), image.size[::-1], strict=True))  # fmt: skip
    high, wide = sized(height, width)
    picture, mask = in_mode(image, "RGB"), in_mode(mask_image, "L")
    box = box_around(mask, wide / high, int(padding_mask_crop))
    ready = [fitted(one.convert("RGB").crop(box), (wide, high)) for one in (picture, mask, *controls)]
    part, white = ready[0], ready[1].convert("L")
    steering = (ready[2:] if isinstance(control_image, list | tuple) else ready[2]) if controls else None
    return Cropped(part, white, high, wide, steering, functools.partial(put_back, picture, mask, box))


def box_around(mask: Any, ratio: float, padding: int) -> Box:
    """The box of all that is not black in a mask, padded, and widened within the picture to width / height = ratio."""
    found = mask.getbbox()
    if found is None:
        raise ValueError("mask_image is black, so there is nothing to paint; make white what is to be painted anew")
    sides = [
        (max(found[axis] - padding, 0), min(found[axis + 2] + padding, mask.size[axis])) for axis in (0, 1)
    ]
    lengths = [high - low for low, high in sides]
    axis = 1 if lengths[0] / lengths[1] > ratio else 0  # the one that is too short
    wanted = lengths[0] / ratio if axis == 1 else lengths[1] * ratio
    more = int(wanted - lengths[axis])
    low, high = sides[axis][0] - more // 2, sides[axis][1] + more - more // 2
    if high >= mask.size[axis]:
        low, high = low - (high - mask.size[axis]), mask.size[axis]
    if low < 0:
        low, high = 0, high - low
    sides[axis] = (low, min(high, mask.size[axis]))
    return sides[0][0], sides[1][0], sides[0][1], sides[1][1]


def fitted(picture: Any, size: Size) -> Any:
    """The picture inside (width, height), its ratio kept; what is left beside it repeats its edges."""
    from PIL import Image

    width, height = size
    inner = _scaled(picture, size, width / height < picture.width / picture.height)
    small = picture.resize(inner, LANCZOS)
    left, top = width // 2 - inner[0] // 2, height // 2 - inner[1] // 2
    out = Image.new("RGB", size)
    out.paste(small, (left, top))
    if top > 0:
        out.paste(small.resize((width, top), box=(0, 0, width, 0)), (0, 0))
        out.paste(small.resize((width, top), box=(0, inner[1], width, inner[1])), (0, top + inner[1]))
    if left > 0:
        out.paste(small.resize((left, height), box=(0, 0, 0, height)), (0, 0))
        out.paste(small.resize((left, height), box=(inner[0], 0, inner[0], height)), (left + inner[0], 0))
    return out


def covered(picture: Any, size: Size) -> Any:
    """The middle of the picture that fills (width, height), its ratio kept: the inverse of `fitted`."""
    from PIL import Image

    width, height = size
    outer = _scaled(picture, size, width / height > picture.width / picture.height)
    out = Image.new("RGB", size)
    out.paste(picture.resize(outer, LANCZOS), (width // 2 - outer[0] // 2, height // 2 - outer[1] // 2))
    return out


def _scaled(picture: Any, size: Size, to_width: bool) -> Size:
    """The picture's (width, height), brought to the width or to the height of `size`."""
    width, height = size
    if to_width:
        return width, picture.height * width // picture.width
    return picture.width * height // picture.height, height


def put_back(picture: Any, mask: Any, box: Box, drawn: Any) -> list[Any]:
    """The picture with each drawn part in its box, as far as the mask is white."""
    from PIL import Image

    found = []
    for part in drawn:
        whole = picture.copy()
        whole.paste(covered(part, (box[2] - box[0], box[3] - box[1])), box[:2])
        found.append(Image.composite(whole, picture, mask))
    return found
