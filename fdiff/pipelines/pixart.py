"""PixArt-alpha and PixArt-Sigma (Chen et al. 2023, 2024): what their pipelines consist of, and do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import KW_ONLY
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models import AutoencoderKL, PixArtTransformer2DModel, T5EncoderModel
from fdiff.pipelines import flow, latent
from fdiff.pipelines.checks import asks_guidance
from fdiff.pipelines.denoise import guided
from fdiff.pipelines.flow import Read, Tokens
from fdiff.pipelines.latent import check_multiples, factor_of, pictures
from fdiff.pipelines.pipeline import DiffusionPipeline, Params, applied, encoder_of, tree_of
from fdiff.pipelines.plans import planned
from fdiff.pipelines.requests import READ_AT_MOST, Latents, Negated, Pixels, Prompt, Scale, Size, Texted
from fdiff.pipelines.task import Task, option
from fdiff.pipelines.text import listed
from fdiff.pipelines.text_to_image import from_noise
from fdiff.schedulers import Scheduler
from fdiff.spacing import check_count
from fdiff.tokenizers import T5Tokenizer

ASKED = "in pixels, what the model was trained on if not given; a multiple of 16 without use_resolution_binning"
# Height and width of the pictures in training, in sixteenths of the square's side (Chen et al. 2023, appendix).
SHAPES = (
    (8, 32), (8, 29), (9, 28), (9, 27), (9, 26), (10, 25), (10, 24), (11, 23), (11, 22), (11, 21), (12, 21), (12, 20),
    (13, 19), (13, 18), (14, 18), (14, 17), (15, 17), (15, 16), (16, 16), (16, 15), (17, 15), (17, 14), (18, 14),
    (18, 13), (19, 13), (20, 12), (21, 12), (22, 11), (23, 11), (24, 10), (25, 10), (27, 9), (32, 8),
)  # fmt: skip
# Those of PixArt-Sigma at 2048 x 2048 besides, and how many latents the side of its square has.
MORE_SHAPES = ((8, 31), (8, 30), (26, 9), (28, 9), (29, 8), (30, 8), (31, 8))
LARGEST = 256


@dataclasses.dataclass(frozen=True)
class PixArtText(Texted, Negated, Latents):
    """Pictures from text with PixArt-alpha."""

    _: KW_ONLY
    height: Pixels = option(None, ASKED)
    width: Pixels = option(None, ASKED)
    guidance_scale: Scale = option(4.5)
    num_inference_steps: int = option(20)
    max_sequence_length: int = option(120, READ_AT_MOST)
    use_resolution_binning: bool = option(
        True, "draw in the shape of those in training that is nearest, and cut the picture to what is asked for",
        flag=None,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PixArtSigmaText(PixArtText):
    """Pictures from text with PixArt-Sigma."""

    _: KW_ONLY
    max_sequence_length: int = option(300)


class Shaped(NamedTuple):
    """Height and width in latents, and what the picture is cut to, in pixels, if to anything."""

    size: Size
    around: dict[str, Any]


def shaped(
    vae: AutoencoderKL, transformer: PixArtTransformer2DModel, height: Pixels, width: Pixels,
    use_resolution_binning: bool,
) -> Shaped:  # fmt: skip
    """Stage: the size. Raises ValueError for one that is none, and for a model without such shapes."""
    factor, own, patch = factor_of(vae), transformer.sample_size, transformer.patch_size
    asked = [own * factor if side is None else side for side in (height, width)]
    if not use_resolution_binning:
        check_multiples(asked[0], asked[1], patch * factor)
        return Shaped((asked[0] // factor, asked[1] // factor), {})
    check_multiples(asked[0], asked[1], 1)
    high, wide = nearest_shape(own, asked[0], asked[1])
    check_multiples(high, wide, patch * factor)
    return Shaped((high // factor, wide // factor), {"fit": (asked[0], asked[1])})


def nearest_shape(sample_size: int, height: int, width: int) -> Size:
    """Height and width in pixels, of the pictures in training, whose quotient to two places is nearest to that.

    sample_size: latents along the square's side, of 8 pixels. Raises ValueError where it is no multiple of 32, 32 being
    for pictures of 256 x 256.
    """
    if sample_size % 32:
        raise ValueError(f"sample_size is {sample_size}, and pictures of several shapes are of models of 32, 64, 128 "
                         "or 256; pass use_resolution_binning=False")
    shapes = SHAPES + (MORE_SHAPES if sample_size == LARGEST else ())
    high, wide = min(sorted(shapes, key=_quotient), key=lambda shape: abs(_quotient(shape) - height / width))
    return high * sample_size // 2, wide * sample_size // 2


def _quotient(shape: Size) -> float:
    return round(shape[0] / shape[1], 2)


@partial(jax.jit, static_argnums=1)
def covering(pictures: jax.Array, size: Size) -> jax.Array:
    """The middle of pictures (b, h, w, c), scaled to fill (height, width)."""
    own = pictures.shape[1:3]
    if own == size:
        return pictures
    scale = max(size[0] / own[0], size[1] / own[1])
    # Rounded down as in diffusers, but never to less than is asked for, as its quotients may.
    high, wide = (max(int(side * scale), least) for side, least in zip(own, size, strict=True))
    shape = (len(pictures), high, wide, pictures.shape[3])
    drawn = jax.image.resize(pictures, shape, "linear", antialias=False)
    top, left = (high - size[0]) // 2, (wide - size[1]) // 2
    return drawn[:, top : top + size[0], left : left + size[1]]


def decode(
    pipe: Any, params: Params, latents: jax.Array, tile_size: int | None = None, *, fit: Size | None = None
) -> jax.Array:
    """Pictures (b, H, W, 3) in [-1, 1], or nearly so, of latents, of which the middle fills `fit`, if given.

    tile_size: see `fdiff.pipelines.latent.decode`.
    """
    drawn = latent.decode(pipe, params, latents, tile_size)
    return drawn if fit is None else covering(drawn, fit)


@dataclasses.dataclass(frozen=True)
class PixArtDenoiser:
    """The transformer as (variables, x, t, text) -> out; two of the same one are one function to the compiler.

    factor: how many pixels a latent is wide.
    """

    transformer: PixArtTransformer2DModel
    factor: int

    def __call__(self, variables: Any, x: jax.Array, t: jax.Array, text: Tokens) -> jax.Array:
        """What the transformer says of x, without the variance that it may predict in further channels."""
        size = jnp.broadcast_to(jnp.float32(self.factor) * jnp.asarray(x.shape[1:3], jnp.float32), (len(x), 2))
        said: Any = self.transformer.apply(variables, x, text.embeddings, t, text.mask, size)
        return said[..., : x.shape[-1]]


def encode_prompt(pipe: Any, params: Params, prompt: Prompt, *, max_sequence_length: int | None = None) -> Tokens:
    """What T5 makes of prompts in small letters, (embeddings (b, n, d), mask (b, n)): the prompt_embeds of a call.

    Negative prompts are read alike, for its negative_prompt_embeds.

    Args:
        params: with the text encoder's.
        prompt: a text or several.
        max_sequence_length: how many tokens are read, as many as a call reads if not given.
    """
    length = pipe.tokens if max_sequence_length is None else max_sequence_length
    return _encoded(pipe, params, listed("prompt", prompt), length)


def _encoded(pipe: Any, params: Params, texts: Sequence[str], length: int) -> Tokens:
    check_count("max_sequence_length", length)
    t5, tokenizer = encoder_of(pipe)
    ids, mask = tokenizer.batch([text.lower().strip() for text in texts], length)
    return Tokens(applied(t5, tree_of(params, "text_encoder"), ids, mask), jnp.asarray(np.asarray(mask, np.int32)))


def read(
    pipe: Any, params: Params, transformer: PixArtTransformer2DModel, vae: AutoencoderKL, prompt: Prompt,
    prompt_embeds: Any, negative_prompt: Prompt, negative_prompt_embeds: Any, guidance_scale: Scale,
    num_images_per_prompt: int, max_sequence_length: int,
) -> Read:  # fmt: skip
    """Stage: the prompts. Raises ValueError for prompts that are none, or given twice."""

    def encode(texts: Sequence[str]) -> Tokens:
        return _encoded(pipe, params, texts, max_sequence_length)

    found = flow.sides(
        encode, flow.given_tokens, asks_guidance(guidance_scale), prompt, prompt_embeds, negative_prompt,
        negative_prompt_embeds,
    )  # fmt: skip
    flow.check_alike(found.positive, found.negative)
    sides = flow.repeated((found.positive, found.negative), num_images_per_prompt)
    return flow.asked(PixArtDenoiser(transformer, factor_of(vae)), params, sides, found.prompts)


STAGES = (shaped, planned, read, from_noise, guided)
drawing = Task(PixArtText, STAGES, pictures, "Draw pictures from text with PixArt-alpha.")
drawing_sigma = Task(PixArtSigmaText, STAGES, pictures, "Draw pictures from text with PixArt-Sigma.")


@dataclasses.dataclass(frozen=True)
class PixArt(DiffusionPipeline):
    """The components of PixArt; without its text encoder it needs prompt_embeds.

    tokens: how many of a prompt are read.
    """

    family: ClassVar[str] = "PixArt"
    tokens: ClassVar[int] = 120

    tokenizer: T5Tokenizer | None
    text_encoder: T5EncoderModel | None
    vae: AutoencoderKL
    transformer: PixArtTransformer2DModel
    scheduler: Scheduler

    encode_prompt = encode_prompt
    decode = decode


@dataclasses.dataclass(frozen=True)
class PixArtAlphaPipeline(PixArt):
    """Pictures from text with PixArt-alpha (Chen et al. 2023), a small transformer that T5 tells what to draw."""

    __call__, steps = drawing.methods()


@dataclasses.dataclass(frozen=True)
class PixArtSigmaPipeline(PixArt):
    """Pictures from text with PixArt-Sigma (Chen et al. 2024), which reads longer texts and draws larger pictures."""

    tokens: ClassVar[int] = 300

    __call__, steps = drawing_sigma.methods()
