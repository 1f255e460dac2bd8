"""FLUX.1 dev, schnell and Krea (Black Forest Labs 2024): what its pipelines consist of, and do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff import guidance, prompts
from fdiff.models import AutoencoderKL, CLIPTextModel, FluxTransformer2DModel, T5EncoderModel
from fdiff.models.layers.patches import packed, unpacked
from fdiff.pipelines import flow, latent
from fdiff.pipelines.checks import asks_guidance, check_scale
from fdiff.pipelines.denoise import Both, guided, variables_of
from fdiff.pipelines.flow import PATCH, T, cropped, from_masked, pictured, places_of, planned, sized
from fdiff.pipelines.image_to_image import from_picture
from fdiff.pipelines.inpaint import masked
from fdiff.pipelines.latent import pictures
from fdiff.pipelines.pipeline import DiffusionPipeline, Params, applied, encoder_of, tree_of
from fdiff.pipelines.requests import (
    READ_AT_MOST,
    Cropping,
    Latents,
    Negated,
    Patched,
    Prompt,
    Redrawn,
    Repainted,
    RepatchedPicture,
    Scale,
    Size,
    Texted,
)
from fdiff.pipelines.task import Task, option
from fdiff.pipelines.text import Counts, encode_jit, listed
from fdiff.pipelines.text_to_image import from_noise
from fdiff.schedulers import Scheduler
from fdiff.spacing import check_count
from fdiff.tokenizers import CLIPTokenizer, T5Tokenizer


@dataclasses.dataclass(frozen=True)
class Asked(Texted, Negated):
    """What FLUX.1 can be asked."""

    _: KW_ONLY
    guidance_scale: Scale = option(3.5, "how closely to keep to the prompt, which dev is told and schnell is not")
    true_cfg_scale: Scale = option(
        1.0, "how far to move from the negative prompt, where there is one; at most 1 is not at all, and costs half"
    )
    num_inference_steps: int = option(28)
    prompt_2: Prompt = option(None, "what T5 reads in place of the prompt, which CLIP reads")
    negative_prompt_2: Prompt = option(None, "what T5 reads in place of the negative prompt")
    prompt_embeds: Any = option(None, "a pair (embeddings, pooled) from `encode_prompt`, in place of a prompt")
    negative_prompt_embeds: Any = option(None, "the same, in place of a negative prompt")
    max_sequence_length: int = option(512, READ_AT_MOST)


@dataclasses.dataclass(frozen=True)
class FluxText(Asked, Patched, Latents):
    """Pictures from text."""


@dataclasses.dataclass(frozen=True)
class FluxPicture(Redrawn, Asked, RepatchedPicture):
    """Pictures from a picture and text."""

    _: KW_ONLY
    guidance_scale: Scale = option(7.0)
    strength: float = option(0.6)


@dataclasses.dataclass(frozen=True)
class FluxMasked(Repainted, Cropping, Asked, RepatchedPicture, Latents):
    """A part of a picture painted anew."""

    _: KW_ONLY
    guidance_scale: Scale = option(7.0)
    strength: float = option(0.6)


class FluxCondition(NamedTuple):
    """What the network is told of a batch; leaves are (b, ...), and None is absent."""

    text: jax.Array  # (b, m, d), as T5 reads it
    pooled: jax.Array  # (b, p), as CLIP does
    guidance: jax.Array | None = None  # (b,)
    kept: jax.Array | None = None  # (b, k, c), patches of a picture to keep to
    appended: jax.Array | None = None  # (b, n, c), numbers that follow those of each patch


@dataclasses.dataclass(frozen=True)
class FluxDenoiser:
    """The transformer as (variables, x, t, condition) -> out; two of the same one are one function to the compiler.

    kept: rows and columns of the patches of a picture to keep to.
    """

    transformer: FluxTransformer2DModel
    kept: Size = (0, 0)

    def __call__(
        self, variables: Any, x: jax.Array, t: jax.Array, told: FluxCondition, joint: Sequence[jax.Array] = (),
        single: Sequence[jax.Array] = (),
    ) -> jax.Array:  # fmt: skip
        """What points from the picture to noise; what ControlNets say is added behind the blocks of either kind."""
        height, width = x.shape[1:3]
        patches, places = packed(x, PATCH), places_of(0, (height // PATCH, width // PATCH))
        count = len(places)
        if told.appended is not None:
            patches = jnp.concatenate([patches, told.appended.astype(x.dtype)], axis=-1)
        if told.kept is not None:
            patches = jnp.concatenate([patches, told.kept.astype(x.dtype)], axis=1)
            places = np.concatenate([places, places_of(1, self.kept)])
        words = np.zeros((told.text.shape[1], 3), np.float32)
        said: Any = self.transformer.apply(
            variables, patches, told.text, told.pooled, t / T, places, words, told.guidance, joint, single
        )
        return unpacked(said[:, :count], height, width, PATCH)


def encode_prompt(
    pipe: Any, params: Params, prompt: Prompt, *, prompt_2: Prompt = None, max_sequence_length: int = 512
) -> tuple[jax.Array, jax.Array]:
    """What the text encoders make of prompts, (embeddings (b, n, d), pooled (b, p)): the prompt_embeds of a call.

    Negative ones are read alike, for its negative_prompt_embeds.

    Args:
        params: with the text encoders'.
        prompt: a text or several.
        prompt_2: what T5 reads in place of those.
        max_sequence_length: how many tokens T5 reads, and the network sees whatever is text in them.
    """
    texts = listed("prompt", prompt)
    second = texts if prompt_2 is None else listed("prompt_2", prompt_2, len(texts))
    return _encoded(pipe, params, texts, second, max_sequence_length)


def _encoded(
    pipe: Any, params: Params, texts: Sequence[str], second: Sequence[str], length: int
) -> tuple[jax.Array, jax.Array]:
    check_count("max_sequence_length", length)
    clip, clip_tokenizer = encoder_of(pipe)
    t5, t5_tokenizer = encoder_of(pipe, "text_encoder_2", "tokenizer_2")
    tokens = prompts.tokenize(clip_tokenizer, texts, cure="the other one reads more")
    pooled = encode_jit(clip, tree_of(params, "text_encoder"), tokens).pooled
    ids, _ = t5_tokenizer.batch(second, length)
    return applied(t5, tree_of(params, "text_encoder_2"), ids), pooled


class Read(NamedTuple):
    """The network that is told a condition, what to draw and what not, how far to move from that, and the pictures."""

    denoiser: guidance.Conditional
    both: Both
    guidance_scale: Scale
    texts: Counts


def read(
    pipe: Any, params: Params, transformer: FluxTransformer2DModel, prompt: Prompt, prompt_2: Prompt,
    prompt_embeds: Any, negative_prompt: Prompt, negative_prompt_2: Prompt, negative_prompt_embeds: Any,
    guidance_scale: Scale, true_cfg_scale: Scale, num_images_per_prompt: int, max_sequence_length: int,
) -> Read:  # fmt: skip
    """Stage: the prompts. Raises ValueError for prompts that are none, or given twice."""
    against = negative_prompt is not None or negative_prompt_embeds is not None
    guides = asks_guidance(true_cfg_scale, name="true_cfg_scale") and against

    def encode(name: str, texts: Sequence[str], other: Prompt) -> tuple[jax.Array, jax.Array]:
        second = texts if other is None else listed(f"{name}_2", other, len(texts))
        return _encoded(pipe, params, texts, second, max_sequence_length)

    found = flow.sides(
        lambda texts: encode("prompt", texts, prompt_2), flow.given_pair, guides, prompt, prompt_embeds,
        negative_prompt, negative_prompt_embeds, lambda texts: encode("negative_prompt", texts, negative_prompt_2),
    )  # fmt: skip
    flow.check_alike(found.positive, found.negative)
    sides = flow.repeated((found.positive, found.negative), num_images_per_prompt)
    count, told = len(sides[0][0]), None
    check_scale("guidance_scale", guidance_scale, count)
    if transformer.guidance_embeds:
        told = jnp.broadcast_to(jnp.asarray(guidance_scale, jnp.float32), (count,))
    positive, negative = (None if side is None else FluxCondition(side[0], side[1], told) for side in sides)
    network = Partial(FluxDenoiser(transformer), variables_of(params, "transformer"))
    return Read(network, (positive, negative), true_cfg_scale, Counts(count, found.prompts, sides[0][0].dtype))


drawing = Task(
    FluxText, (sized, planned, read, from_noise, guided), pictures, "Draw pictures from text with FLUX.1."
)
redrawing = Task(
    FluxPicture, (pictured, planned, read, from_picture, guided), pictures,
    "Redraw a picture as a text says (SDEdit, Meng et al. 2022).",
)  # fmt: skip
inpainting = Task(
    FluxMasked, (cropped, pictured, masked, planned, read, from_masked, guided), pictures,
    "Paint a part of a picture anew.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Flux(DiffusionPipeline):
    """The components of FLUX.1; without its text encoders it needs prompt_embeds."""

    family: ClassVar[str] = "FLUX.1"
    siblings: ClassVar[dict[str, str]] = {
        "image": "FluxImg2ImgPipeline", "mask_image": "FluxInpaintPipeline",
        "FluxControlNetModel": "FluxControlNetPipeline",
    }  # fmt: skip

    scheduler: Scheduler
    vae: AutoencoderKL
    text_encoder: CLIPTextModel | None
    tokenizer: CLIPTokenizer | None
    text_encoder_2: T5EncoderModel | None
    tokenizer_2: T5Tokenizer | None
    transformer: FluxTransformer2DModel

    encode_prompt = encode_prompt
    decode = latent.decode


@dataclasses.dataclass(frozen=True)
class FluxPipeline(Flux):
    """Pictures from text with FLUX.1, dev, schnell and Krea (Black Forest Labs 2024).

    schnell draws in 4 steps: pipe(params, "a red cat", num_inference_steps=4, max_sequence_length=256, key=...)
    """

    __call__, steps = drawing.methods()


@dataclasses.dataclass(frozen=True)
class FluxImg2ImgPipeline(Flux):
    """Pictures from a picture and text with FLUX.1 (SDEdit, Meng et al. 2022)."""

    __call__, steps = redrawing.methods()


@dataclasses.dataclass(frozen=True)
class FluxInpaintPipeline(Flux):
    """A part of a picture painted anew with FLUX.1."""

    __call__, steps = inpainting.methods()
