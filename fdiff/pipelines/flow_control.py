"""What pipelines of diffusion transformers with ControlNets share: pictures that steer, as large as what is drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import guidance
from fdiff.pipelines import inputs
from fdiff.pipelines.binned import PicturedInShape
from fdiff.pipelines.denoise import Both
from fdiff.pipelines.flow import PATCH
from fdiff.pipelines.latent import factor_of
from fdiff.pipelines.pipeline import Params, tree_of
from fdiff.pipelines.requests import Pictures, Pixels, Size
from fdiff.pipelines.steering import Control, Numbers, control, several, trees_of
from fdiff.pipelines.task import Request, option
from fdiff.pipelines.text import Counts
from fdiff.plan import Plan

P = TypeVar("P", inputs.Pictured, PicturedInShape)


@dataclasses.dataclass(frozen=True)
class InPart(Request):
    """A picture, of which ControlNets that see the rest of it paint a part anew."""

    control_image: Pictures = option(
        None, "what to paint a part of: PIL, uint8 or float in [-1, 1], (h, w, 3), one for all prompts or one for each"
    )
    control_mask: Pictures = option(
        None, "of the picture's size, PIL, uint8 or float in [0, 1], one channel; white, at least 0.5, is painted anew"
    )


class Seen(NamedTuple):
    """Pictures (b, H, W, c) in [-1, 1], or latents, one batch for each net."""

    seen: list[np.ndarray]


class SeenAndSized(NamedTuple):
    """The same, and the height and width of the picture to draw, in latents and in pixels."""

    seen: list[np.ndarray]
    size: Size
    pixels: Size
    resized: bool


def sized_by_control(
    vae: Any, controlnet: Any, control_image: Pictures, height: Pixels, width: Pixels
) -> SeenAndSized:
    """Stage: the pictures for ControlNets, whose size is that of the picture to draw.

    Raises ValueError for another number of them than of nets, and for several sizes.
    """
    step = PATCH * factor_of(vae)
    found = taken_for(
        controlnet, control_image, lambda one: inputs.pictured_by(step, vae, one, height, width, "control_image")
    )
    return SeenAndSized([one.image for one in found], *found[0][1:])


def taken_for(controlnet: Any, control_image: Pictures, take: Callable[[Pictures], P]) -> list[P]:
    """What `take` makes of the pictures for each ControlNet, their `size` among it.

    Raises ValueError for another number of them than of nets, and for several sizes.
    """
    nets = several(controlnet)
    if len(nets) > 1 and (not isinstance(control_image, list | tuple) or len(control_image) != len(nets)):
        raise ValueError(f"control_image must be a list of {len(nets)} pictures or batches, one for each network")
    given = list(control_image) if len(nets) > 1 else [control_image]
    found = [take(one) for one in given]
    if len({one.size for one in found}) != 1:
        raise ValueError(f"control_image holds pictures of several sizes, {sorted(one.pixels for one in found)}; "
                         "resize them first")
    return found


def control_seen(vae: Any, controlnet: Any, control_image: Pictures, pixels: Size, resized: bool) -> Seen:
    """Stage: the pictures for ControlNets, beside that to begin from, resized as it was.

    Raises ValueError for another size, and as `sized_by_control` does.
    """
    found = sized_by_control(vae, controlnet, control_image, *(pixels if resized else (None, None)))
    if found.pixels != pixels:
        size = f"{found.pixels[0]} x {found.pixels[1]}"
        raise ValueError(f"control_image is {size}; it must be {pixels[0]} x {pixels[1]}, as the picture to draw")
    return Seen(found.seen)


class Steering(NamedTuple):
    """The network with its ControlNets, and what it is told."""

    denoiser: guidance.Conditional
    both: Both


def acting(
    transformer: Any, controlnet: Any, params: Params, plan: Plan, scale: Numbers, start: Numbers, end: Numbers
) -> tuple[tuple[Any, ...], list[Any], Control]:
    """The ControlNets, their parameters, and how strongly each acts at which rows.

    Raises ValueError for another number of settings or trees than of nets, and for nets whose patches are not as wide
    as those of the transformer.
    """
    nets, trees = several(controlnet), trees_of(controlnet, tree_of(params, "controlnet"))
    acts = control(plan, len(nets), scale, start, end)
    for net in nets:
        found, wanted = (one.num_attention_heads * one.attention_head_dim for one in (net, transformer))
        if found != wanted:
            raise ValueError(f"the ControlNet has patches of width {found}, and the transformer of {wanted}: it is for "
                             "another model; choose one for this")
    return nets, trees, acts


def check_channels(seen: Iterable[int], shown: tuple[jax.Array, ...], masked: str, plain: str) -> None:
    """Raise ValueError where nets see another number of channels than they are shown.

    masked, plain: the pipelines of nets that see a mask, and of others.
    """
    for wanted, picture in zip(seen, shown, strict=True):
        if picture.shape[-1] != wanted:
            raise ValueError(f"the ControlNet sees {wanted} channels and is given {picture.shape[-1]}; one that sees a "
                             f"mask too is for {masked}, another one for {plain}")


def latents_seen(
    vae: Any, params: Params, array: np.ndarray, noise: jax.Array | None, batch_size: int, prompts: int
) -> jax.Array:
    """The latents (b, h, w, c) of a picture that steers. Raises ValueError for another number of pictures."""
    inputs.check_number("control_image", array, batch_size, prompts)
    return inputs.latents_of(vae, params, array, noise, batch_size)


class Rest(NamedTuple):
    """The rest of the pictures, black where they are painted anew, and where that is, (b, h, w, 1) of 0 and 1."""

    seen: list[np.ndarray]
    mask: np.ndarray


def rest_seen(vae: Any, seen: list[np.ndarray], control_mask: Pictures, pixels: Size, resized: bool) -> Rest:
    """Stage: the part that is painted. Raises ValueError for a mask of another size, and latents for pictures."""
    mask = inputs.mask_pictures(control_mask, pixels, resized, "control_mask")
    for array in seen:
        inputs.check_seen(vae, array, "ControlNet")
    return Rest([np.where(mask == 1, np.float32(-1), array) for array in seen], mask)


def rest_latents(
    vae: Any, params: Params, seen: list[np.ndarray], mask: np.ndarray, texts: Counts
) -> tuple[jax.Array, ...]:
    """For each net the most probable latents of the rest of a picture and, behind them, 1 where it is kept, and 0.

    Raises ValueError for another number of pictures or masks than of prompts or of what is drawn.
    """
    inputs.check_number("control_mask", mask, texts.batch_size, texts.prompts)
    factor = factor_of(vae)
    small = inputs.spread("control_mask", 1 - mask[:, ::factor, ::factor], texts.batch_size)
    latents = (latents_seen(vae, params, array, None, texts.batch_size, texts.prompts) for array in seen)
    return tuple(jnp.concatenate([one, small], axis=-1) for one in latents)
