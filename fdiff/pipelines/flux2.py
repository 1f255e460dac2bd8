"""FLUX.2 klein, distilled and base (Black Forest Labs 2025): what its pipeline consists of, and does."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import KW_ONLY
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models import AutoencoderKLFlux2, Flux2Transformer2DModel, Qwen3ForCausalLM
from fdiff.pipelines import flow, inputs, latent
from fdiff.pipelines.checks import asks_guidance
from fdiff.pipelines.denoise import guided
from fdiff.pipelines.draws import Seed
from fdiff.pipelines.flow import Read, T
from fdiff.pipelines.latent import Begun, encoded, first_latents, pictures
from fdiff.pipelines.pipeline import DiffusionPipeline, Params, tree_of
from fdiff.pipelines.plans import Planned, empirical_mu, flow_plan
from fdiff.pipelines.requests import (
    READ_AT_MOST,
    Latents,
    Negated,
    Patched,
    Pixels,
    Prompt,
    References,
    Scale,
    Size,
    Texted,
)
from fdiff.pipelines.task import Key, Task, option
from fdiff.pipelines.text import Counts
from fdiff.plan import Plan
from fdiff.schedulers import Scheduler
from fdiff.spacing import check_count
from fdiff.tokenizers import Qwen2Tokenizer

LAYERS = (9, 18, 27)  # of the text encoder, whose hidden states lie side by side
AREA = 1024 * 1024  # pixels of a picture to keep to, at most
LEAST, LONGEST = 64, 8  # pixels of its sides, and the ratio of them
APART = 10  # between the places of pictures in the first axis: 0 is drawn, the others are kept to
KEPT = (
    "pictures to keep to, one or a list, of any sizes: PIL, uint8 or float in [-1, 1], (h, w, 3); PIL images of more "
    "than 1024 x 1024 pixels are made smaller. The first one's size is drawn if no other is given"
)


@dataclasses.dataclass(frozen=True)
class Asked(Texted, Negated):
    """What klein can be asked."""

    _: KW_ONLY
    guidance_scale: Scale = option(
        4.0, "how closely to keep to the prompt; at most 1 is none, and costs half, as it does for a checkpoint that "
        "is_distilled, which takes no notice of it"
    )  # fmt: skip
    max_sequence_length: int = option(512, READ_AT_MOST)
    text_encoder_out_layers: tuple[int, ...] = option(LAYERS, "which hidden states of the text encoder are read")


@dataclasses.dataclass(frozen=True)
class KleinText(Asked, Patched, Latents):
    """Pictures from text, and from pictures to keep to."""

    image: References = option(None, KEPT)


class Sized(NamedTuple):
    """Height and width in squares of latents, and the pictures to keep to, (1, h, w, 3) each."""

    size: Size
    references: tuple[np.ndarray, ...]


def sized(vae: AutoencoderKLFlux2, image: References, height: Pixels, width: Pixels) -> Sized:
    """Stage: the size, and the pictures to keep to. Raises ValueError for sizes that the squares do not divide."""
    step = latent.factor_of(vae) * vae.patch_size[0]
    references = references_of(image, step)
    own = references[0].shape[1:3] if references else (flow.LATENTS * latent.factor_of(vae),) * 2
    pixels = [side if given is None else given for given, side in zip((height, width), own, strict=True)]
    latent.check_multiples(pixels[0], pixels[1], step)
    return Sized((pixels[0] // step, pixels[1] // step), references)


def references_of(image: References, step: int) -> tuple[np.ndarray, ...]:
    """The pictures to keep to, each as `reference` makes it; none of None."""
    listed = [] if image is None else image if isinstance(image, list | tuple) else [image]
    return tuple(reference(one, step) for one in listed)


def reference(picture: Any, step: int) -> np.ndarray:
    """A picture to keep to, (1, h, w, 3): of an area that is not too large, cut to multiples of `step` in its middle.

    Raises ValueError for one that is too small or too long.
    """
    array = inputs.kept_picture(no_larger(picture))
    height, width = array.shape[1:3]
    if min(height, width) < LEAST or max(height, width) > LONGEST * min(height, width):
        raise ValueError(f"image is {width} x {height} pixels; a picture to keep to must have {LEAST} or more on each "
                         f"side, and be at most {LONGEST} times as long as wide")
    high, wide = height // step * step, width // step * step
    top, left = (height - high) // 2, (width - wide) // 2
    return array[:, top : top + high, left : left + wide]


def no_larger(picture: Any) -> Any:
    """A PIL image of AREA pixels at most; what is no such image is left alone."""
    if not hasattr(picture, "convert") or picture.size[0] * picture.size[1] <= AREA:
        return picture
    width, height = picture.size
    scale = math.sqrt(AREA / (width * height))
    return picture.resize((int(width * scale), int(height * scale)), inputs.LANCZOS)


def planned(
    scheduler: Scheduler, num_inference_steps: int, plan: Plan | None, size: Size, strength: float = 1.0
) -> Planned:
    """Stage: the table, shifted by the number of squares of latents and of steps."""
    check_count("num_inference_steps", num_inference_steps)
    mu = empirical_mu(size[0] * size[1], num_inference_steps)
    return Planned(flow_plan(scheduler, num_inference_steps, plan, mu, strength))


class KleinCondition(NamedTuple):
    """A text, (b, m, d), the squares of the latents of pictures to keep to, (b, k, c), and what dev is told, (b,)."""

    text: jax.Array
    references: jax.Array | None
    guidance: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class KleinDenoiser:
    """The transformer as (variables, x, t, condition) -> out, beside pictures to keep to of those sizes.

    Two of the same transformer are one function to the compiler.
    """

    transformer: Flux2Transformer2DModel
    references: tuple[Size, ...] = ()

    def __call__(self, variables: Any, x: jax.Array, t: jax.Array, told: KleinCondition) -> jax.Array:
        """What points from the picture to noise."""
        batch, height, width, channels = x.shape
        tokens = x.reshape(batch, height * width, channels)
        places = [places_of(0, (height, width))]
        if told.references is not None:
            tokens = jnp.concatenate([tokens, told.references.astype(x.dtype)], axis=1)
            places += [places_of(APART * (i + 1), size) for i, size in enumerate(self.references)]
        length = told.text.shape[1]
        words = np.stack([np.zeros(length)] * 3 + [np.arange(length)], axis=-1).astype(np.float32)
        ids = np.concatenate(places)
        said: Any = self.transformer.apply(variables, tokens, told.text, t / T, ids, words, told.guidance)
        return said[:, : height * width].reshape(x.shape)


def places_of(picture: int, size: Size) -> np.ndarray:
    """(h w, 4): the picture, the row and the column of each square of latents, and 0."""
    return np.pad(flow.places_of(picture, size), ((0, 0), (0, 1)))


def encode_prompt(
    pipe: Any, params: Params, prompt: Prompt, negative_prompt: Prompt = None, *, max_sequence_length: int = 512,
    text_encoder_out_layers: tuple[int, ...] = LAYERS,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """What the text encoder makes of prompts and of negative ones: the prompt_embeds and negative_prompt_embeds.

    (b, max_sequence_length, 3 d) each: the network sees what is behind a text, too.

    Args:
        params: with the text encoder's.
        prompt: a text or several.
        negative_prompt: one for all or one for each; nothing if not given.
        max_sequence_length: how many tokens are read, those of the template among them.
        text_encoder_out_layers: which hidden states are read.
    """
    encode = _encoder(pipe, params, max_sequence_length, text_encoder_out_layers)
    positive, negative = flow.both_sides(encode, prompt, negative_prompt)
    return positive.embeddings, negative.embeddings


def _encoder(pipe: Any, params: Params, length: int, layers: tuple[int, ...]) -> flow.Encoder:
    return partial(flow.read_chat, pipe, params, length=length, thinking=False, layers=tuple(layers), whole=True)


def read(
    pipe: Klein, params: Params, references: tuple[np.ndarray, ...], prompt: Prompt, prompt_embeds: Any,
    negative_prompt: Prompt, negative_prompt_embeds: Any, guidance_scale: Scale, num_images_per_prompt: int,
    max_sequence_length: int, text_encoder_out_layers: tuple[int, ...],
) -> Read:  # fmt: skip
    """Stage: the prompts, and the latents of pictures to keep to. Raises ValueError for prompts that are none."""
    guides = asks_guidance(guidance_scale) and not pipe.is_distilled
    found = flow.sides(
        _encoder(pipe, params, max_sequence_length, text_encoder_out_layers), flow.given_tokens, guides, prompt,
        prompt_embeds, negative_prompt, negative_prompt_embeds,
    )  # fmt: skip
    texts = flow.repeated((found.positive, found.negative), num_images_per_prompt)
    count = len(texts[0].embeddings)
    kept, sizes = kept_of(pipe.vae, params, references, count)
    return flow.asked(
        KleinDenoiser(pipe.transformer, sizes), params, texts, found.prompts,
        lambda side: KleinCondition(side.embeddings, kept),
    )  # fmt: skip


def kept_of(
    vae: AutoencoderKLFlux2, params: Params, references: tuple[np.ndarray, ...], count: int
) -> tuple[jax.Array | None, tuple[Size, ...]]:
    """The squares of the latents of pictures to keep to, (count, k, c), None of none, and rows and columns of each."""
    squares = [encoded(vae, tree_of(params, "vae"), one) for one in references]
    flat = [inputs.spread("image", one.reshape(len(one), -1, one.shape[-1]), count) for one in squares]
    sizes = tuple((one.shape[1], one.shape[2]) for one in squares)
    return (jnp.concatenate(flat, axis=1) if flat else None), sizes


def from_noise(
    vae: AutoencoderKLFlux2, plan: Plan, size: Size, texts: Counts, latents: Any, key: Key, torch_seed: Seed
) -> Begun:
    """Stage: begin with noise alone, the user's or drawn, in squares of latents."""
    channels = vae.latent_channels * vae.patch_size[0] * vae.patch_size[1]
    return first_latents(plan, (texts.batch_size, *size, channels), latents, key, torch_seed, texts.dtype)


drawing = Task(
    KleinText, (sized, planned, read, from_noise, guided), pictures,
    "Draw pictures from text, and from pictures to keep to, with FLUX.2 klein.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Klein(DiffusionPipeline):
    """The components of FLUX.2 klein; a text encoder that is None needs prompt_embeds."""

    family: ClassVar[str] = "FLUX.2 klein"
    siblings: ClassVar[dict[str, str]] = {"mask_image": "Flux2KleinInpaintPipeline"}

    scheduler: Scheduler
    vae: AutoencoderKLFlux2
    text_encoder: Qwen3ForCausalLM | None
    tokenizer: Qwen2Tokenizer | None
    transformer: Flux2Transformer2DModel
    is_distilled: bool = False

    encode_prompt = encode_prompt
    decode = latent.decode


@dataclasses.dataclass(frozen=True)
class Flux2KleinPipeline(Klein):
    """Pictures from text, and from pictures to keep to, with FLUX.2 klein, 4B and 9B (Black Forest Labs 2025).

        pipe(params, "a red cat", num_inference_steps=4, key=jax.random.key(0))

    `is_distilled` says that the checkpoint draws in few steps and without guidance.
    """

    __call__, steps = drawing.methods()
