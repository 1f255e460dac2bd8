"""Pictures, masks and maps that a user gives, as arrays for a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff.images import in_mode
from fdiff.models import AutoencoderKL
from fdiff.pipelines.checks import finite
from fdiff.pipelines.latent import check_multiples, encoded, factor_of
from fdiff.pipelines.pipeline import Params, tree_of
from fdiff.pipelines.requests import Pictures, Pixels, Size

LANCZOS = 1  # PIL's number for the filter


def pictures(
    name: str, given: Pictures, *, low: float = -1.0, mode: str = "RGB", size: tuple[Pixels, Pixels] = (None, None),
    multiple: int = 1,
) -> np.ndarray:  # fmt: skip
    """(b, h, w, c) float32 from `low` to 1: PIL images and uint8 are brought there, other numbers are as they are.

    size: height and width to resize to. multiple: PIL images are else resized to whole multiples of it below their own.
    As in diffusers, PIL images are resized by Lanczos' filter, arrays take their nearest pixels.

    Raises ValueError for none, pictures of several sizes, and another shape or kind of numbers.
    """
    if given is None:
        raise ValueError(f"{name} is missing; pass a picture, or an array (height, width, channels)")
    if isinstance(given, str | Path):
        raise ValueError(f"{name} is the path {str(given)!r}; open it first, as PIL.Image.open does")
    listed = list(given) if isinstance(given, list | tuple) else [given]
    arrays = [_array(one, mode, size, multiple) for one in listed]
    if len({array.shape for array in arrays}) != 1:
        raise ValueError(f"{name} holds pictures of several sizes, or none; resize them first")
    stacked = np.concatenate([array if array.ndim == 4 else array[None] for array in arrays])
    if stacked.ndim != 4:
        raise ValueError(f"{name} has shape {stacked.shape}; it must be (height, width, channels), or a batch of those")
    if not stacked.size:
        raise ValueError(f"{name} has shape {stacked.shape}, so it holds no picture")
    if stacked.dtype == np.uint8:
        if stacked.shape[-1] == 4:
            raise ValueError(f"{name} has 4 channels; convert it to RGB")
        if low == 0 and stacked.shape[-1] == 1 and stacked.max() == 1:
            raise ValueError(f"{name} holds whole numbers of 1 at most, where white is 255; multiply it by 255")
        return stacked.astype(np.float32) / 255 * (1 - low) + low
    if stacked.dtype == bool and low == 0:  # a mask
        return stacked.astype(np.float32)
    if not jnp.issubdtype(stacked.dtype, jnp.floating):
        raise ValueError(f"{name} holds {stacked.dtype} numbers; it must be uint8, or float from {low:g} to 1")
    return np.asarray(finite(name, stacked.astype(np.float32)))


def _array(one: Any, mode: str, size: tuple[Pixels, Pixels], multiple: int) -> np.ndarray:
    """A picture as an array of the size that is asked for."""
    if hasattr(one, "convert"):
        picture = in_mode(one, mode)
        height, width = (
            side or own - own % multiple or own for side, own in zip(size, picture.size[::-1], strict=True)
        )
        array = np.asarray(picture if (width, height) == picture.size else picture.resize((width, height), LANCZOS))
        return array[..., None] if array.ndim == 2 else array
    array = np.asarray(one)
    array = array[..., None] if array.ndim == 2 else array
    for axis, side in zip((-3, -2), size, strict=True):
        if side and array.ndim > 2 and array.shape[axis] not in (0, side):
            array = np.take(array, np.arange(side) * array.shape[axis] // side, axis)
    return array


def check_range(name: str, array: np.ndarray, low: float) -> None:
    """Raise ValueError unless the numbers of pictures lie between `low` and 1, or a hundredth beside them."""
    if array.min() < low - 0.01 or array.max() > 1.01:
        raise ValueError(f"{name} holds numbers from {array.min():g} to {array.max():g}; floats must lie within "
                         f"{low:g} and 1, or pass uint8")


def mask_pictures(given: Pictures, size: Size, resized: bool = False, name: str = "mask_image") -> np.ndarray:
    """(b, h, w, 1) of 0 and 1, 1 where the picture is to be painted anew, brought to its size where that was `resized`.

    Raises ValueError for another size.
    """
    mask = pictures(name, given, low=0.0, mode="L", size=size if resized else (None, None))
    if mask.shape[1:3] != size or mask.shape[3] != 1:
        raise ValueError(
            f"{name} is {mask.shape[1]} x {mask.shape[2]} with {mask.shape[3]} channels, and the picture "
            f"{size[0]} x {size[1]}; it must have that size and one channel"
        )
    check_range(name, mask, 0.0)
    return (mask >= 0.5).astype(np.float32)


def check_number(name: str, array: Any, batch_size: int, prompts: int) -> None:
    """Raise ValueError unless there is one picture for all, or one for each prompt or each picture to draw."""
    if len(array) not in (1, prompts, batch_size):
        raise ValueError(f"{len(array)} pictures are given as {name} for {prompts} prompts, {batch_size} to draw; "
                         "pass one, or one for each")


def spread(name: str, array: Any, batch_size: int) -> jax.Array:
    """One picture for all, or one for each prompt, repeated for b. Raises ValueError where that does not come out."""
    if batch_size % len(array):
        raise ValueError(f"{len(array)} pictures are given as {name} for {batch_size} to draw; pass one, or one each")
    return jnp.repeat(jnp.asarray(array), batch_size // len(array), axis=0)


class Pictured(NamedTuple):
    """The user's pictures, and their height and width in latents and in pixels."""

    image: np.ndarray
    size: Size
    pixels: Size
    resized: bool  # whether they had another size before


def pictured(vae: AutoencoderKL, image: Pictures, height: Pixels, width: Pixels) -> Pictured:
    """Stage: pictures or, where they have as many channels, latents; see `pictured_by`."""
    return pictured_by(max(8, factor_of(vae)), vae, image, height, width)


def pictured_by(
    step: int, vae: Any, image: Pictures, height: Pixels, width: Pixels, name: str = "image"
) -> Pictured:
    """Pictures of that name or, by their channels, latents, of sides that are multiples of `step` pixels.

    Raises ValueError unless they have the channels of the autoencoder, and such sides.
    """
    factor = factor_of(vae)
    check_multiples(height or step, width or step, step)
    latents = hasattr(image, "shape") and holds_latents(vae, image)
    array = pictures(name, image, size=(None, None) if latents else (height, width), multiple=step)
    high, wide, channels = array.shape[1:]
    if holds_latents(vae, array):
        return Pictured(array, (high, wide), (high * factor, wide * factor), False)
    if channels != vae.in_channels:
        raise ValueError(f"{name} has {channels} channels; it must have {vae.in_channels}")
    check_range(name, array, -1.0)
    check_multiples(high, wide, step)
    first = image[0] if isinstance(image, list | tuple) else image
    before = first.size[::-1] if hasattr(first, "convert") else np.shape(first)[-3:-1]
    return Pictured(array, (high // factor, wide // factor), (high, wide), tuple(before) != (high, wide))


def holds_latents(vae: Any, array: Any) -> bool:
    """Whether an array is one of latents, by its channels."""
    return array.shape[-1] == vae.latent_channels != vae.in_channels


def kept_picture(one: Any) -> np.ndarray:
    """A picture to keep to, (1, h, w, 3) in [-1, 1]. Raises ValueError for what is no picture."""
    array = pictures("image", one)
    if len(array) != 1 or array.shape[-1] != 3:
        raise ValueError(f"image has shape {array.shape[-3:]}; each picture to keep to must be (height, width, 3)")
    check_range("image", array, -1.0)
    return array


def check_seen(vae: Any, image: Any, network: str) -> None:
    """Raise ValueError for latents, where the network needs the picture that they are of."""
    if holds_latents(vae, image):
        raise ValueError(f"image holds latents, and the {network} needs to see the picture; pass the picture itself")


def latents_of(vae: Any, params: Params, array: Any, noise: jax.Array | None, batch_size: int) -> jax.Array:
    """(b, h, w, c) as a denoiser takes them, of pictures or of latents.

    `noise` (b, h, w, c) draws them from the encoder's distribution; without it they are the most probable ones.
    """
    array = jnp.asarray(array, jnp.float32)
    if not holds_latents(vae, array):
        array = encoded(vae, tree_of(params, "vae"), array, noise)
    return spread("image", array, batch_size)
