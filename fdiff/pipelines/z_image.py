"""Z-Image, base and Turbo (Z-Image Team 2025): what its pipelines consist of, and do."""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import guidance
from fdiff.models import AutoencoderKL, Qwen3ForCausalLM, ZImageTransformer2DModel
from fdiff.pipelines import flow, latent
from fdiff.pipelines.checks import asks_guidance, check_scale
from fdiff.pipelines.denoise import Both, Network, guide
from fdiff.pipelines.draws import Seed
from fdiff.pipelines.flow import Read, T, Tokens, from_masked, pictured, planned, sized
from fdiff.pipelines.image_to_image import from_picture
from fdiff.pipelines.inpaint import masked
from fdiff.pipelines.latent import Autoencoder, Begun, first_latents, pictures
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
    Size,
    Texted,
)
from fdiff.pipelines.task import Key, Task, option
from fdiff.pipelines.text import Counts
from fdiff.plan import Plan
from fdiff.rows import ByRow
from fdiff.schedulers import Scheduler
from fdiff.tokenizers import Qwen2Tokenizer


@dataclasses.dataclass(frozen=True)
class Asked(Texted, Negated):
    """What Z-Image can be asked."""

    _: KW_ONLY
    guidance_scale: Scale = option(
        5.0, "how closely to keep to the prompt: positive + scale (positive - negative), so that 0 is none, and costs "
        "half, which is what Turbo wants"
    )  # fmt: skip
    cfg_normalization: Scale = option(
        0.0, "what guidance gives is at most so many times as long as what the network says of the prompt; 0: as it is"
    )
    cfg_truncation: float | None = option(
        1.0, "guide only until the network is told this time, which runs from 0, noise, to 1"
    )
    max_sequence_length: int = option(512, READ_AT_MOST)


@dataclasses.dataclass(frozen=True)
class ZImageText(Asked, Patched, Latents):
    """Pictures from text."""


@dataclasses.dataclass(frozen=True)
class ZImagePicture(Redrawn, Asked, RepatchedPicture):
    """Pictures from a picture and text."""

    _: KW_ONLY
    strength: float = option(0.6)


@dataclasses.dataclass(frozen=True)
class ZImageMasked(Repainted, Asked, RepatchedPicture, Latents):
    """A part of a picture painted anew."""


def encode_prompt(
    pipe: Any, params: Params, prompt: Prompt, negative_prompt: Prompt = None, *, max_sequence_length: int = 512
) -> tuple[Tokens, Tokens]:
    """What the text encoder makes of prompts and of negative ones: the prompt_embeds and negative_prompt_embeds.

    Args:
        params: with the text encoder's.
        prompt: a text or several.
        negative_prompt: one for all or one for each; nothing if not given.
        max_sequence_length: how many tokens are read, those of the template among them.
    """
    return flow.both_sides(_encoder(pipe, params, max_sequence_length), prompt, negative_prompt)


def _encoder(pipe: Any, params: Params, length: int) -> flow.Encoder:
    return partial(flow.read_chat, pipe, params, length=length, thinking=True, layers=(-2,))


@dataclasses.dataclass(frozen=True)
class ZImageDenoiser:
    """The transformer as (variables, x, t, tokens) -> out, of a time that falls to the picture, as schedulers have it.

    Two of the same transformer are one function to the compiler.
    """

    transformer: ZImageTransformer2DModel

    def __call__(self, variables: Any, x: jax.Array, t: jax.Array, tokens: Tokens) -> jax.Array:
        """What points from the picture to noise."""
        said: Any = self.transformer.apply(variables, x, (T - t) / T, tokens.embeddings, tokens.mask)
        return -said


def read(
    pipe: Any, params: Params, transformer: ZImageTransformer2DModel, prompt: Prompt, prompt_embeds: Any,
    negative_prompt: Prompt, negative_prompt_embeds: Any, guidance_scale: Scale, num_images_per_prompt: int,
    max_sequence_length: int,
) -> Read:  # fmt: skip
    """Stage: the prompts. Raises ValueError for prompts that are none, or given twice."""
    found = flow.sides(
        _encoder(pipe, params, max_sequence_length), flow.given_tokens, asks_guidance(guidance_scale, above=0), prompt,
        prompt_embeds, negative_prompt, negative_prompt_embeds,
    )  # fmt: skip
    both = flow.repeated(flow.equally_long(found.positive, found.negative), num_images_per_prompt)
    return flow.asked(ZImageDenoiser(transformer), params, both, found.prompts)


def from_noise(
    vae: Autoencoder, plan: Plan, size: Size, texts: Counts, latents: Any, key: Key, torch_seed: Seed
) -> Begun:
    """Stage: begin with noise alone, the user's or drawn, in float32 whatever the text encoder computes in."""
    shape = (texts.batch_size, *size, vae.latent_channels)
    return first_latents(plan, shape, latents, key, torch_seed, "float32")


def guided(
    plan: Plan, x: jax.Array, denoiser: guidance.Conditional, both: Both, guidance_scale: Scale,
    cfg_normalization: Scale, cfg_truncation: float | None,
) -> Network:  # fmt: skip
    """Stage: the network, guided from the negative prompts to the others. Raises ValueError for numbers that are none.
    """
    check_scale("guidance_scale", guidance_scale, len(x))
    check_scale("cfg_truncation", 1.0 if cfg_truncation is None else cfg_truncation)
    limited = asks_guidance(cfg_normalization, len(x), above=0, name="cfg_normalization") and both[1] is not None
    guider = partial(guidance.norm_limited, limit=cfg_normalization) if limited else None
    scale, on = 1 + jnp.asarray(guidance_scale, jnp.float32), None
    if cfg_truncation is not None and cfg_truncation < 1:
        xp: Any = jnp if isinstance(plan.t, jax.core.Tracer) else np
        told = (T - xp.asarray(plan.t, xp.float32)) / T
        on = ByRow(told.astype(float) <= cfg_truncation)
    return Network(guide(denoiser, *both, scale, on=on, guider=guider))


drawing = Task(
    ZImageText, (sized, planned, read, from_noise, guided), pictures, "Draw pictures from text with Z-Image."
)
redrawing = Task(
    ZImagePicture, (pictured, planned, read, from_picture, guided), pictures,
    "Redraw a picture as a text says (SDEdit, Meng et al. 2022).",
)  # fmt: skip
inpainting = Task(
    ZImageMasked, (pictured, masked, planned, read, from_masked, guided), pictures, "Paint a part of a picture anew."
)


@dataclasses.dataclass(frozen=True)
class ZImage(DiffusionPipeline):
    """The components of Z-Image; a text encoder that is None needs prompt_embeds."""

    family: ClassVar[str] = "Z-Image"
    siblings: ClassVar[dict[str, str]] = {"image": "ZImageImg2ImgPipeline", "mask_image": "ZImageInpaintPipeline"}

    scheduler: Scheduler
    vae: AutoencoderKL
    text_encoder: Qwen3ForCausalLM | None
    tokenizer: Qwen2Tokenizer | None
    transformer: ZImageTransformer2DModel

    encode_prompt = encode_prompt
    decode = latent.decode


@dataclasses.dataclass(frozen=True)
class ZImagePipeline(ZImage):
    """Pictures from text with Z-Image, as Tongyi-MAI/Z-Image-Turbo draws them in 8 steps (Z-Image Team 2025).

    pipe(params, "a red cat", guidance_scale=0.0, num_inference_steps=8, key=jax.random.key(0))
    """

    __call__, steps = drawing.methods()


@dataclasses.dataclass(frozen=True)
class ZImageImg2ImgPipeline(ZImage):
    """Pictures from a picture and text with Z-Image (SDEdit, Meng et al. 2022)."""

    __call__, steps = redrawing.methods()


@dataclasses.dataclass(frozen=True)
class ZImageInpaintPipeline(ZImage):
    """A part of a picture painted anew with Z-Image."""

    __call__, steps = inpainting.methods()
