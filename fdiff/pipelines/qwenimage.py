"""Qwen-Image (Qwen Team 2025): what its pipelines consist of, and do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import KW_ONLY
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from fdiff import guidance
from fdiff.models import AutoencoderKLQwenImage, Qwen2_5_VLModel, QwenImageTransformer2DModel
from fdiff.models.layers.patches import packed, unpacked
from fdiff.pipelines import flow, latent
from fdiff.pipelines.checks import asks_guidance, check_scale
from fdiff.pipelines.denoise import Both, Network, guide
from fdiff.pipelines.flow import PATCH, Read, T, Tokens, from_masked, pictured, planned, sized
from fdiff.pipelines.image_to_image import from_picture
from fdiff.pipelines.inpaint import masked
from fdiff.pipelines.latent import pictures
from fdiff.pipelines.pipeline import DiffusionPipeline, Params
from fdiff.pipelines.requests import (
    READ_AT_MOST,
    Latents,
    Negated,
    Patched,
    Prompt,
    Redrawn,
    Repainted,
    RepatchedPicture,
    Scale,
    Texted,
)
from fdiff.pipelines.task import Task, option
from fdiff.pipelines.text_to_image import from_noise
from fdiff.schedulers import Scheduler
from fdiff.spacing import check_count
from fdiff.tokenizers import Qwen2Tokenizer

BEFORE = (  # what the text encoder is told to do, and in which words
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n"
)
BEHIND = "<|im_end|>\n<|im_start|>assistant\n"
DROPPED = 34  # tokens before the prompt, which the network does not see


@dataclasses.dataclass(frozen=True)
class Asked(Texted, Negated):
    """What Qwen-Image can be asked."""

    _: KW_ONLY
    guidance_scale: Scale = option(
        4.0, "how far to move from the negative prompt, where there is one, ' ' for example; at most 1 is not at all, "
        "and costs half"
    )  # fmt: skip
    max_sequence_length: int = option(512, READ_AT_MOST)


@dataclasses.dataclass(frozen=True)
class QwenImageText(Asked, Patched, Latents):
    """Pictures from text."""


@dataclasses.dataclass(frozen=True)
class QwenImagePicture(Redrawn, Asked, RepatchedPicture):
    """Pictures from a picture and text."""

    _: KW_ONLY
    strength: float = option(0.6)


@dataclasses.dataclass(frozen=True)
class QwenImageMasked(Repainted, Asked, RepatchedPicture, Latents):
    """A part of a picture painted anew."""

    _: KW_ONLY
    strength: float = option(0.6)


class QwenImageCondition(NamedTuple):
    """What the network is told of a batch; leaves are (b, ...)."""

    text: jax.Array  # (b, n, d)
    mask: jax.Array  # (b, n), 0 where there is none
    kept: tuple[jax.Array, ...] = ()  # (b, h, w, c), squares of latents of pictures to keep to


@dataclasses.dataclass(frozen=True)
class QwenImageDenoiser:
    """The transformer as (variables, x, t, condition) -> out; two of the same one are one function to the compiler."""

    transformer: QwenImageTransformer2DModel

    def __call__(
        self, variables: Any, x: jax.Array, t: jax.Array, told: QwenImageCondition, added: Sequence[Any] = ()
    ) -> jax.Array:
        """What points from the picture to noise; `added` is what ControlNets add behind the blocks."""
        kept = tuple(one.astype(x.dtype) for one in told.kept)
        said: Any = self.transformer.apply(variables, squares(x), t / T, told.text, told.mask, kept, None, added)
        return unpacked(said.reshape(len(x), -1, said.shape[-1]), x.shape[1], x.shape[2], PATCH)


def squares(x: jax.Array) -> jax.Array:
    """Latents (b, h, w, c) in squares of them: (b, h / 2, w / 2, 4 c), channels outermost."""
    batch, height, width, _ = x.shape
    return packed(x, PATCH).reshape(batch, height // PATCH, width // PATCH, -1)


def encode_prompt(
    pipe: Any, params: Params, prompt: Prompt, negative_prompt: Prompt = None, *, max_sequence_length: int = 512
) -> tuple[Tokens, Tokens]:
    """What the text encoder makes of prompts and of negative ones: the prompt_embeds and negative_prompt_embeds.

    Args:
        params: with the text encoder's.
        prompt: a text or several.
        negative_prompt: one for all or one for each; nothing if not given.
        max_sequence_length: how many tokens are read, those behind the prompt among them.
    """
    return flow.both_sides(_encoder(pipe, params, max_sequence_length), prompt, negative_prompt)


def _encoder(pipe: Any, params: Params, length: int) -> flow.Encoder:
    def encode(prompts: Sequence[str]) -> Tokens:
        check_count("max_sequence_length", length)
        texts = [BEFORE + prompt + BEHIND for prompt in prompts]
        found = flow.read_texts(pipe, params, texts, DROPPED + length, layers=(-1,))
        return Tokens(found.embeddings[:, DROPPED:], found.mask[:, DROPPED:])

    return encode


def read(
    pipe: Any, params: Params, transformer: QwenImageTransformer2DModel, prompt: Prompt, prompt_embeds: Any,
    negative_prompt: Prompt, negative_prompt_embeds: Any, guidance_scale: Scale, num_images_per_prompt: int,
    max_sequence_length: int,
) -> Read:  # fmt: skip
    """Stage: the prompts. Raises ValueError for prompts that are none, or given twice."""
    negates = negative_prompt is not None or negative_prompt_embeds is not None
    found = flow.sides(
        _encoder(pipe, params, max_sequence_length), flow.given_tokens, asks_guidance(guidance_scale) and negates,
        prompt, prompt_embeds, negative_prompt, negative_prompt_embeds,
    )  # fmt: skip
    both = flow.repeated(flow.equally_long(found.positive, found.negative), num_images_per_prompt)
    return flow.asked(
        QwenImageDenoiser(transformer), params, both, found.prompts, lambda side: QwenImageCondition(*side)
    )


def guided(x: jax.Array, denoiser: guidance.Conditional, both: Both, guidance_scale: Scale) -> Network:
    """Stage: the network, guided from the negative prompts to the others. Raises ValueError for a scale that is none.
    """
    check_scale("guidance_scale", guidance_scale, len(x))
    return Network(guide(denoiser, *both, guidance_scale, guider=partial(guidance.as_long, length=square_lengths)))


def square_lengths(x: jax.Array) -> jax.Array:
    """Of what a network says, (b, h, w, c): the norm of the square that each latent is in, (b, h, w, 1)."""
    norms = jnp.linalg.norm(packed(x, PATCH), axis=-1, keepdims=True)
    return unpacked(jnp.repeat(norms, PATCH**2, axis=-1), x.shape[1], x.shape[2], PATCH)


drawing = Task(
    QwenImageText, (sized, planned, read, from_noise, guided), pictures, "Draw pictures from text with Qwen-Image."
)
redrawing = Task(
    QwenImagePicture, (pictured, planned, read, from_picture, guided), pictures,
    "Redraw a picture as a text says (SDEdit, Meng et al. 2022).",
)  # fmt: skip
inpainting = Task(
    QwenImageMasked, (pictured, masked, planned, read, from_masked, guided), pictures,
    "Paint a part of a picture anew.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class QwenImage(DiffusionPipeline):
    """The components of Qwen-Image; a text encoder that is None needs prompt_embeds."""

    family: ClassVar[str] = "Qwen-Image"
    siblings: ClassVar[dict[str, str]] = {
        "image": "QwenImageImg2ImgPipeline", "mask_image": "QwenImageInpaintPipeline",
        "QwenImageControlNetModel": "QwenImageControlNetPipeline",
    }  # fmt: skip

    scheduler: Scheduler
    vae: AutoencoderKLQwenImage
    text_encoder: Qwen2_5_VLModel | None
    tokenizer: Qwen2Tokenizer | None
    transformer: QwenImageTransformer2DModel

    encode_prompt = encode_prompt
    decode = latent.decode


@dataclasses.dataclass(frozen=True)
class QwenImagePipeline(QwenImage):
    """Pictures from text with Qwen-Image (Qwen Team 2025).

    pipe(params, "a red cat", negative_prompt=" ", key=jax.random.key(0))
    """

    __call__, steps = drawing.methods()


@dataclasses.dataclass(frozen=True)
class QwenImageImg2ImgPipeline(QwenImage):
    """Pictures from a picture and text with Qwen-Image (SDEdit, Meng et al. 2022)."""

    __call__, steps = redrawing.methods()


@dataclasses.dataclass(frozen=True)
class QwenImageInpaintPipeline(QwenImage):
    """A part of a picture painted anew with Qwen-Image."""

    __call__, steps = inpainting.methods()
