"""FLUX.1 Kontext and Fill (Black Forest Labs 2024, 2025), which see the picture that they change."""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff import guidance
from fdiff.models import AutoencoderKL, FluxTransformer2DModel
from fdiff.models.layers.patches import packed, to_patches
from fdiff.pipelines import flow, inputs, latent
from fdiff.pipelines.denoise import Both, guided
from fdiff.pipelines.draws import Draws, Seed, Wanted, draw_as_asked
from fdiff.pipelines.flow import PATCH, pictured, planned
from fdiff.pipelines.flux import Asked, Flux, read
from fdiff.pipelines.image_to_image import noised
from fdiff.pipelines.inpaint import masked
from fdiff.pipelines.latent import Sized, encoded, factor_of, pictures
from fdiff.pipelines.pipeline import Params, tree_of
from fdiff.pipelines.requests import Latents, Pixels, References, Repainted, RepatchedPicture, Scale, Size
from fdiff.pipelines.task import Key, Task, option
from fdiff.pipelines.text import Counts
from fdiff.pipelines.text_to_image import from_noise
from fdiff.plan import Plan
from fdiff.spacing import check_count

# (width, height) in pixels, on which Kontext was trained.
TRAINED = (
    (672, 1568), (688, 1504), (720, 1456), (752, 1392), (800, 1328), (832, 1248), (880, 1184), (944, 1104),
    (1024, 1024), (1104, 944), (1184, 880), (1248, 832), (1328, 800), (1392, 752), (1456, 720), (1504, 688),
    (1568, 672),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class KontextText(Asked, Latents):
    """Pictures from text, and from a picture to keep to."""

    image: References = option(
        None, "a picture to keep to, one for all prompts or one for each: PIL, uint8 or float in [-1, 1], (h, w, 3)"
    )
    _: KW_ONLY
    height: Pixels = option(None, "beside the width, which says how high the picture is; as high as wide if not given")
    width: Pixels = option(None, "beside the height, which says how wide the picture is; as wide as high if not given")
    max_area: int = option(1024 * 1024, "how many pixels the picture has, nearly, whatever the height and the width")
    auto_resize: bool = option(
        True, "bring the picture to keep to to the one of the sizes that the model knows whose shape is most like it",
        flag=None,
    )


def sized(vae: AutoencoderKL, height: Pixels, width: Pixels, max_area: int) -> Sized:
    """Stage: the size in latents, of that area and that shape. Raises ValueError for numbers of pixels that are none.
    """
    factor = factor_of(vae)
    step, default = PATCH * factor, flow.LATENTS * factor
    sides = [default if side is None else side for side in (height, width)]
    for name, value in (("height", sides[0]), ("width", sides[1]), ("max_area", max_area)):
        check_count(name, value)
    shape = sides[1] / sides[0]
    pixels = round((max_area / shape) ** 0.5) // step * step, round((max_area * shape) ** 0.5) // step * step
    latent.check_multiples(pixels[0], pixels[1], step)
    return Sized((pixels[0] // factor, pixels[1] // factor))


class Told(NamedTuple):
    """The network, and what it is told besides."""

    denoiser: guidance.Conditional
    both: Both


def kept(
    vae: AutoencoderKL, params: Params, denoiser: Any, both: Both, texts: Counts, image: References, auto_resize: bool
) -> Told:
    """Stage: the picture to keep to, where there is one. Raises ValueError for what is no picture of three channels."""
    if image is None:
        return Told(denoiser, both)
    step = PATCH * factor_of(vae)
    first = image[0] if isinstance(image, list | tuple) else image
    sides = first.size if hasattr(first, "convert") else np.shape(first)[-2:-4:-1]
    width, height = (max(side // step, 1) * step for side in sides)
    if auto_resize:
        _, width, height = min((abs(width / height - w / h), w, h) for w, h in TRAINED)
    array = inputs.pictures("image", image, size=(height // step * step, width // step * step))
    if array.shape[-1] != vae.in_channels:
        raise ValueError(f"image has {array.shape[-1]} channels; it must have {vae.in_channels}")
    inputs.check_range("image", array, -1.0)
    inputs.check_number("image", array, texts.batch_size, texts.prompts)
    latents = inputs.spread("image", encoded(vae, tree_of(params, "vae"), array), texts.batch_size)
    size = latents.shape[1] // PATCH, latents.shape[2] // PATCH
    network, variables = denoiser.func, denoiser.args
    seeing = Partial(dataclasses.replace(network, kept=size), *variables)
    positive, negative = (None if one is None else one._replace(kept=packed(latents, PATCH)) for one in both)
    return Told(seeing, (positive, negative))


@dataclasses.dataclass(frozen=True)
class FillMasked(Repainted, Asked, RepatchedPicture):
    """A part of a picture painted anew."""

    _: KW_ONLY
    guidance_scale: Scale = option(30.0)
    num_inference_steps: int = option(50)


class Begun(NamedTuple):
    """The first x, the draws of the steps, and what to draw and what not, beside what the network sees."""

    x: jax.Array
    draws: Draws
    both: Both


def from_seen(
    vae: AutoencoderKL, transformer: FluxTransformer2DModel, params: Params, plan: Plan, image: np.ndarray,
    mask: np.ndarray, size: Size, texts: Counts, both: Both, key: Key, torch_seed: Seed,
) -> Begun:  # fmt: skip
    """Stage: begin with the picture noised; the network sees the mask and the rest of the picture.

    Raises ValueError for latents in place of a picture, and for a network that sees none.
    """
    inputs.check_number("image", image, texts.batch_size, texts.prompts)
    inputs.check_number("mask_image", mask, texts.batch_size, texts.prompts)
    inputs.check_seen(vae, image, "transformer")
    shape = (texts.batch_size, *size, vae.latent_channels)
    wanted = Wanted(shape[1:], len(image)), Wanted(shape[1:]), Wanted(shape[1:], len(image))
    draws = draw_as_asked(key, torch_seed, plan, shape, texts.dtype, *wanted)
    latents = inputs.latents_of(vae, params, image, draws.arrays[0], shape[0])
    rest = inputs.latents_of(vae, params, image * (1 - mask), draws.arrays[2], shape[0])
    pixels = inputs.spread("mask_image", to_patches(jnp.asarray(mask), mask.shape[1] // size[0]), shape[0])
    squares = pixels.reshape(shape[0], *size, -1)
    seen = jnp.concatenate([packed(rest, PATCH), packed(squares, PATCH)], axis=-1)
    channels = PATCH**2 * vae.latent_channels + seen.shape[-1]
    if transformer.in_channels != channels:
        raise ValueError(f"the transformer takes {transformer.in_channels} channels and is given {channels}; load the "
                         "checkpoint with the pipeline that its model_index.json names")
    positive, negative = (None if one is None else one._replace(appended=seen) for one in both)
    return Begun(noised(plan, latents, draws.arrays[1]), draws, (positive, negative))


editing = Task(
    KontextText, (sized, planned, read, kept, from_noise, guided), pictures,
    "Draw pictures from text, and from a picture to keep to, with FLUX.1 Kontext.",
)  # fmt: skip
filling = Task(
    FillMasked, (pictured, masked, planned, read, from_seen, guided), pictures,
    "Paint a part of a picture anew with FLUX.1 Fill.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class FluxKontextPipeline(Flux):
    """Pictures edited as a text says with FLUX.1 Kontext (Black Forest Labs 2025)."""

    __call__, steps = editing.methods()


@dataclasses.dataclass(frozen=True)
class FluxFillPipeline(Flux):
    """A part of a picture painted anew, or more around it, with FLUX.1 Fill (Black Forest Labs 2024)."""

    family: ClassVar[str] = "FLUX.1 Fill"
    siblings: ClassVar[dict[str, str]] = {}

    __call__, steps = filling.methods()
