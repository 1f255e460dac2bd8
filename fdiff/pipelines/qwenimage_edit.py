"""Qwen-Image-Edit (Qwen Team 2025), whose text encoder sees the pictures that the network keeps to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import images
from fdiff.image_processors import Qwen2VLProcessor
from fdiff.models import AutoencoderKLQwenImage, Qwen2_5_VLModel, QwenImageTransformer2DModel
from fdiff.models.qwen2_5_vl import places
from fdiff.pipelines import flow, inputs, latent
from fdiff.pipelines.checks import asks_guidance
from fdiff.pipelines.denoise import Both
from fdiff.pipelines.flow import PATCH, Read, Tokens, from_masked, planned
from fdiff.pipelines.latent import check_multiples, encoded, factor_of, pictures
from fdiff.pipelines.pipeline import DiffusionPipeline, Params, encoder_of, tree_of
from fdiff.pipelines.qwenimage import Asked, QwenImageCondition, QwenImageDenoiser, guided, squares
from fdiff.pipelines.requests import Latents, Pictures, Pixels, Prompt, References, Scale, Size
from fdiff.pipelines.task import Task, option
from fdiff.pipelines.text_to_image import from_noise
from fdiff.schedulers import Scheduler
from fdiff.spacing import check_count
from fdiff.tokenizers import Qwen2Tokenizer

ASKED = (  # what the text encoder is told to do, and in which words
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, texture, objects, "
    "background), then explain how the user's text instruction should alter or modify the image. Generate a new image "
    "that meets the user's requirements while maintaining consistency with the original input where appropriate."
    "<|im_end|>\n<|im_start|>user\n{}{}<|im_end|>\n<|im_start|>assistant\n"
)
DROPPED = 64  # tokens of it before the pictures, which the network does not see
PICTURE, NUMBER = "<|vision_start|>{}<|vision_end|>", "Picture {}: "
SIDE = 32  # pixels of which pictures to keep to have a multiple
SEEN_AREA = 384 * 384  # pixels of each of several pictures, as the text encoder sees them


@dataclasses.dataclass(frozen=True)
class EditText(Asked, Latents):
    """Pictures from text, and from a picture to keep to."""

    image: References = option(None, "a picture to keep to: PIL, uint8 or float in [-1, 1], (h, w, 3)")
    _: KW_ONLY
    height: Pixels = option(None, "in pixels, a multiple of 16; as of the (last) picture if not given")
    width: Pixels = option(None, "in pixels, a multiple of 16; as of the (last) picture if not given")
    max_area: int = option(1024 * 1024, "how many pixels pictures to keep to are brought to, nearly")
    max_sequence_length: int = option(
        1024, "how many tokens of a prompt are read, those behind it among them and those of pictures not"
    )


@dataclasses.dataclass(frozen=True)
class EditPlusText(EditText):
    """Pictures from text, and from several pictures to keep to."""

    image: References = option(None, "pictures to keep to, one or a list, of any sizes: PIL, uint8 or float in [-1, 1]")


@dataclasses.dataclass(frozen=True)
class EditMasked(Asked, Latents):
    """A part of a picture painted anew, which is kept to."""

    image: References = option(None, "a picture to keep to: PIL, uint8 or float in [-1, 1], (h, w, 3)")
    mask_image: Pictures = option(
        None, "PIL, uint8 or float in [0, 1], one channel; white, at least 0.5, is painted anew", flag="mask"
    )
    _: KW_ONLY
    strength: float = option(0.6, "0 to 1, how much of it to redraw; so much of num_inference_steps is run")
    max_area: int = option(1024 * 1024, "how many pixels pictures to keep to are brought to, nearly")
    max_sequence_length: int = option(
        1024, "how many tokens of a prompt are read, those behind it among them and those of the picture not"
    )


class Shown(NamedTuple):
    """The size in latents, the pictures to keep to, (1, h, w, 3), and these as the text encoder sees them."""

    size: Size
    kept: tuple[np.ndarray, ...]
    seen: tuple[np.ndarray, ...]
    numbered: bool  # whether the text says which picture is which


def one_shown(pipe: QwenImageEdit, image: References, height: Pixels, width: Pixels, max_area: int) -> Shown:
    """Stage: one picture. Raises ValueError for none or several, and sizes that are none."""
    listed = _listed(image)
    if len(listed) != 1:
        raise ValueError(f"{len(listed)} pictures are given as image; QwenImageEditPipeline keeps to one, and "
                         "QwenImageEditPlusPipeline to several")
    check_count("max_area", max_area)
    brought = listed[0].resize(dimensions(max_area, listed[0].size), inputs.LANCZOS)
    return _shown(pipe, [brought], [brought], height, width, False)


def all_shown(pipe: QwenImageEdit, image: References, height: Pixels, width: Pixels, max_area: int) -> Shown:
    """Stage: several pictures. Raises ValueError for none, and sizes that are none."""
    listed = _listed(image)
    check_count("max_area", max_area)
    kept, seen = (
        [one.resize(dimensions(area, one.size), inputs.LANCZOS) for one in listed] for area in (max_area, SEEN_AREA)
    )
    return _shown(pipe, kept, seen, height, width, True)


class ShownInPart(NamedTuple):
    """The size in latents, the picture (1, h, w, 3) and as the text encoder sees it, and where it is painted."""

    size: Size
    image: np.ndarray
    mask: np.ndarray
    kept: tuple[np.ndarray, ...]  # which is none: what is kept to is encoded once, with that to begin from
    seen: tuple[np.ndarray, ...]
    numbered: bool


def part_shown(pipe: QwenImageEdit, image: References, mask_image: Pictures, max_area: int) -> ShownInPart:
    """Stage: one picture and its mask. Raises ValueError for none or several, and for a mask that is none."""
    size, (array,), seen, numbered = one_shown(pipe, image, None, None, max_area)
    mask = inputs.mask_pictures(mask_image, (array.shape[1], array.shape[2]), True)
    return ShownInPart(size, array, mask, (), seen, numbered)


class Kept(NamedTuple):
    """What to draw and what not, with the picture that is kept to."""

    both: Both


def kept_to(both: Both, known: jax.Array) -> Kept:
    """Stage: the latents of the picture that is painted in part, which the network keeps to, too."""
    positive, negative = (None if side is None else side._replace(kept=(squares(known),)) for side in both)
    return Kept((positive, negative))


def _listed(image: References) -> list[Any]:
    """The pictures as PIL images. Raises ValueError for what is no picture."""
    found = []
    for one in image if isinstance(image, list | tuple) else [image]:
        array = inputs.kept_picture(one)
        found.append(images.in_mode(one, "RGB") if hasattr(one, "convert") else images.to_pil(array)[0])
    if not found:
        raise ValueError("image is an empty list; pass a picture to keep to")
    return found


def dimensions(area: int, size: tuple[int, int]) -> tuple[int, int]:
    """Width and height of such an area, nearly, and of that shape, multiples of SIDE."""
    width = math.sqrt(area * (size[0] / size[1]))
    sides = width, width / (size[0] / size[1])
    wide, high = (max(round(side / SIDE) * SIDE, SIDE) for side in sides)
    return wide, high


def _shown(
    pipe: QwenImageEdit, kept: list[Any], seen: list[Any], height: Pixels, width: Pixels, numbered: bool
) -> Shown:
    factor = factor_of(pipe.vae)
    step = PATCH * factor
    own = [side // step * step for side in kept[-1].size[::-1]]
    pixels = [side if given is None else given for given, side in zip((height, width), own, strict=True)]
    check_multiples(pixels[0], pixels[1], step)
    arrays = tuple(inputs.pictures("image", one) for one in kept)
    read = () if pipe.processor is None else tuple(pipe.processor(one) for one in seen)
    return Shown((pixels[0] // factor, pixels[1] // factor), arrays, read, numbered)


def encode_prompt(
    pipe: Any, params: Params, prompt: Prompt, image: References, negative_prompt: Prompt = None, *,
    max_area: int = 1024 * 1024, max_sequence_length: int = 1024,
) -> tuple[Tokens, Tokens]:  # fmt: skip
    """What the text encoder makes of prompts and of negative ones: the prompt_embeds and negative_prompt_embeds.

    Args:
        params: with the text encoder's.
        prompt: a text or several.
        image: what to keep to, which the text encoder sees.
        negative_prompt: one for all or one for each; nothing if not given.
        max_area: how many pixels the picture is brought to.
        max_sequence_length: how many tokens of a prompt are read.
    """
    shown = pipe.shows(pipe, image, None, None, max_area)
    encode = _encoder(pipe, params, shown.seen, shown.numbered, max_sequence_length)
    return flow.both_sides(encode, prompt, negative_prompt)


def _encoder(
    pipe: Any, params: Params, seen: tuple[np.ndarray, ...], numbered: bool, length: int
) -> flow.Encoder:

    def encode(prompts: Sequence[str]) -> Tokens:
        check_count("max_sequence_length", length)
        encoder, processor = encoder_of(pipe, tokenizer="processor")
        sizes = [processor.grid(one) for one in seen]
        counts = [rows * columns for rows, columns in sizes]
        token = processor.tokenizer.decode([encoder.image_token_id])
        parts = [(NUMBER.format(i + 1) if numbered else "") + PICTURE.format(token * n) for i, n in enumerate(counts)]
        texts = [ASKED.format("".join(parts), prompt) for prompt in prompts]
        ids, mask = processor.tokenizer.batch(texts, DROPPED + length + sum(counts))
        ids, mask = flow.without_padding(ids, mask)
        where = places(ids, encoder.image_token_id, sizes)
        tree = tree_of(params, "text_encoder")
        states = flow.states_of(encoder, (-1,), True, tree, ids, mask, where, seen)
        return Tokens(states[:, DROPPED:], jnp.asarray(mask[:, DROPPED:]))

    return encode


def read(
    pipe: Any, params: Params, kept: tuple[np.ndarray, ...], seen: tuple[np.ndarray, ...], numbered: bool,
    prompt: Prompt, prompt_embeds: Any, negative_prompt: Prompt, negative_prompt_embeds: Any, guidance_scale: Scale,
    num_images_per_prompt: int, max_sequence_length: int,
) -> Read:  # fmt: skip
    """Stage: the prompts, with the pictures. Raises ValueError for prompts that are none, or given twice."""
    negates = negative_prompt is not None or negative_prompt_embeds is not None
    found = flow.sides(
        _encoder(pipe, params, seen, numbered, max_sequence_length), flow.given_tokens,
        asks_guidance(guidance_scale) and negates, prompt, prompt_embeds, negative_prompt, negative_prompt_embeds,
    )  # fmt: skip
    both = flow.repeated(flow.equally_long(found.positive, found.negative), num_images_per_prompt)
    tree, count = tree_of(params, "vae"), len(both[0].embeddings)
    latents = tuple(inputs.spread("image", squares(encoded(pipe.vae, tree, jnp.asarray(one))), count) for one in kept)
    return flow.asked(
        QwenImageDenoiser(pipe.transformer), params, both, found.prompts,
        lambda side: QwenImageCondition(side.embeddings, side.mask, latents),
    )  # fmt: skip


editing = Task(
    EditText, (one_shown, planned, read, from_noise, guided), pictures,
    "Draw pictures from text, and from a picture to keep to, with Qwen-Image-Edit.",
)  # fmt: skip
editing_several = Task(
    EditPlusText, (all_shown, planned, read, from_noise, guided), pictures,
    "Draw pictures from text, and from pictures to keep to, with Qwen-Image-Edit-2509 and later.",
)  # fmt: skip

painting = Task(
    EditMasked, (part_shown, planned, read, from_masked, kept_to, guided), pictures,
    "Paint a part of a picture anew with Qwen-Image-Edit.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class QwenImageEdit(DiffusionPipeline):
    """The components of Qwen-Image-Edit; a text encoder that is None needs prompt_embeds."""

    family: ClassVar[str] = "Qwen-Image-Edit"
    siblings: ClassVar[dict[str, str]] = {"mask_image": "QwenImageEditInpaintPipeline"}

    scheduler: Scheduler
    vae: AutoencoderKLQwenImage
    text_encoder: Qwen2_5_VLModel | None
    tokenizer: Qwen2Tokenizer | None
    processor: Qwen2VLProcessor | None
    transformer: QwenImageTransformer2DModel

    encode_prompt = encode_prompt
    decode = latent.decode


@dataclasses.dataclass(frozen=True)
class QwenImageEditPipeline(QwenImageEdit):
    """A picture edited as a text says with Qwen-Image-Edit (Qwen Team 2025).

    pipe(params, "the same at night", photo, negative_prompt=" ", key=jax.random.key(0))
    """

    shows = staticmethod(one_shown)
    __call__, steps = editing.methods()


@dataclasses.dataclass(frozen=True)
class QwenImageEditPlusPipeline(QwenImageEdit):
    """Pictures edited and put together as a text says with Qwen-Image-Edit-2509 and later (Qwen Team 2025).

    pipe(params, "the cat on the mat", [cat, mat], negative_prompt=" ", key=jax.random.key(0))
    """

    shows = staticmethod(all_shown)
    __call__, steps = editing_several.methods()


@dataclasses.dataclass(frozen=True)
class QwenImageEditInpaintPipeline(QwenImageEdit):
    """A part of a picture painted anew with Qwen-Image-Edit, which sees the picture and keeps to it.

    pipe(params, "a moon", photo, mask, negative_prompt=" ", key=jax.random.key(0))
    """

    shows = staticmethod(one_shown)
    __call__, steps = painting.methods()
