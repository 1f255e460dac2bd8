"""FLUX.3, base and distilled (Black Forest Labs 2026): what its pipeline consists of, and does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import KW_ONLY
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models import AutoencoderKLFlux2, Flux3Transformer2DModel, Qwen3VLModel
from fdiff.pipelines import flow, inputs, latent
from fdiff.pipelines.checks import asks_guidance
from fdiff.pipelines.denoise import guided
from fdiff.pipelines.flow import LATENTS, Read, T, Tokens, planned_as_trained
from fdiff.pipelines.flux2 import from_noise, kept_of, no_larger
from fdiff.pipelines.latent import check_multiples, factor_of, pictures
from fdiff.pipelines.pipeline import DiffusionPipeline, Params, encoder_of, tree_of
from fdiff.pipelines.plans import count_rows
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
from fdiff.pipelines.task import Task, option
from fdiff.plan import Plan
from fdiff.rows import ByRow
from fdiff.schedulers import Scheduler
from fdiff.spacing import check_count
from fdiff.tokenizers import Qwen2Tokenizer

LAYERS = (4, 8, 12, 16, 20, 24, 28, 32)  # of the text encoder, whose hidden states lie side by side
WINDOW = 80  # tokens, of which the network sees whole numbers: a text and the padding behind it
READ = 8192  # tokens
PADDED_AT = 1  # where padding lies for the text encoder, as it did in training
CLOSER = 0.5  # of the places of latents in rows and columns
AREA, LONGEST, LEAST = 4 * 1024 * 1024, 4096, 64  # pixels of one picture to keep to, and of its sides


@dataclasses.dataclass(frozen=True)
class Flux3Text(Texted, Negated, Patched, Latents):
    """Pictures from text, and from pictures to keep to."""

    image: References = option(
        None, "pictures to keep to, one or a list, of any sizes: PIL, uint8 or float in [-1, 1], (h, w, 3). One is "
        "kept whole, PIL images of more than four megapixels being made smaller; several are cut to multiples of 16 "
        "pixels, those of more than one megapixel being made smaller. The first one's size is drawn if none is given"
    )  # fmt: skip
    _: KW_ONLY
    guidance_scale: Scale = option(
        3.5, "how closely to keep to the prompt; at most 1 is none, and costs half, as it does for a distilled "
        "checkpoint, whose transformer has a flow_map and takes no notice of it"
    )  # fmt: skip
    num_inference_steps: int = option(50, "network calls; 16 are enough for a distilled checkpoint")
    max_sequence_length: int = option(READ, READ_AT_MOST)
    text_encoder_out_layers: tuple[int, ...] = option(LAYERS, "which hidden states of the text encoder are read")


class Sized(NamedTuple):
    """The size in squares of latents, the pictures to keep to, and what of the decoded picture is the one given."""

    size: Size
    references: tuple[np.ndarray, ...]
    around: dict[str, Any] | None


def sized(vae: AutoencoderKLFlux2, image: References, height: Pixels, width: Pixels) -> Sized:
    """Stage: the size, and the pictures to keep to. Raises ValueError for sizes that the squares do not divide."""
    step = factor_of(vae) * vae.patch_size[0]
    listed = [] if image is None else list(image) if isinstance(image, list | tuple) else [image]
    own, box = (LATENTS * factor_of(vae),) * 2, None
    references = tuple(cut(one, step) for one in listed)
    if len(listed) == 1:
        whole, box = filled(listed[0], step)
        references = (whole,)
    if references:
        own = references[0].shape[1:3]
    pixels = [side if given is None else given for given, side in zip((height, width), own, strict=True)]
    check_multiples(pixels[0], pixels[1], step)
    kept_whole = height is None and width is None and box is not None
    return Sized((pixels[0] // step, pixels[1] // step), references, {"box": box} if kept_whole else None)


def cut(one: Any, step: int) -> np.ndarray:
    """One of several pictures to keep to, (1, h, w, 3), cut to multiples of `step` in its middle."""
    array = inputs.kept_picture(no_larger(one))
    sides = [side // step * step for side in array.shape[1:3]]
    if 0 in sides:
        raise ValueError(f"image is {array.shape[2]} x {array.shape[1]} pixels; a picture to keep to must have {step} "
                         "or more on each side")
    top, left = ((whole - side) // 2 for whole, side in zip(array.shape[1:3], sides, strict=True))
    return array[:, top : top + sides[0], left : left + sides[1]]


def filled(one: Any, step: int) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """A picture to keep to, (1, h, w, 3), mirrored at its sides to multiples of `step`; and where in that it lies.

    The box is (top, bottom, left, right). A PIL image is made smaller as far as it takes for AREA and LONGEST.
    """
    if hasattr(one, "convert"):
        width, height = one.size
        scale = min(1.0, math.sqrt(AREA / (width * height)), LONGEST / max(width, height))
        while True:
            size = max(1, round(height * scale)), max(1, round(width * scale))
            if math.prod(canvas(side, step) for side in size) <= AREA:
                break
            scale *= 0.995
        one = one if size == (height, width) else one.convert("RGB").resize(size[::-1], inputs.LANCZOS)
    array = inputs.kept_picture(one)
    found = array.shape[1:3]
    if max(found) > LONGEST:
        raise ValueError(f"image is {found[1]} x {found[0]} pixels; {LONGEST} are the most on each side of an array")
    more = [canvas(side, step) - side for side in found]
    before = [part // 2 for part in more]
    padding = [(first, whole - first) for first, whole in zip(before, more, strict=True)]
    mode: Any = "reflect" if min(found) > step else "symmetric"  # which repeats the last line, too
    whole = np.pad(array, [(0, 0), *padding, (0, 0)], mode=mode)
    return whole, (before[0], before[0] + found[0], before[1], before[1] + found[1])


def canvas(side: int, step: int) -> int:
    """How long the side of a picture is that is kept whole."""
    return min(LONGEST, max(LEAST, -(-side // step) * step))


def encode_prompt(
    pipe: Any, params: Params, prompt: Prompt, negative_prompt: Prompt = None, *, max_sequence_length: int = READ,
    text_encoder_out_layers: tuple[int, ...] = LAYERS,
) -> tuple[Tokens, Tokens]:  # fmt: skip
    """What the text encoder makes of prompts and of negative ones: the prompt_embeds and negative_prompt_embeds.

    The mask says what the network sees: a text, and padding behind it up to a multiple of 80 tokens.

    Args:
        params: with the text encoder's.
        prompt: a text or several.
        negative_prompt: one for all or one for each; nothing if not given.
        max_sequence_length: how many tokens are read, those of the template among them.
        text_encoder_out_layers: which hidden states are read.
    """
    encode = _encoder(pipe, params, max_sequence_length, text_encoder_out_layers)
    return flow.both_sides(encode, prompt, negative_prompt)


def _encoder(pipe: Any, params: Params, length: int, layers: tuple[int, ...]) -> flow.Encoder:
    return partial(windows, pipe, params, length=length, layers=tuple(layers))


def windows(pipe: Any, params: Params, prompts: Sequence[str], length: int, layers: tuple[int, ...]) -> Tokens:
    """Prompts as the text encoder has them, and what of them and of the padding behind them the network sees."""
    check_count("max_sequence_length", length)
    encoder, tokenizer = encoder_of(pipe)
    ids, mask = tokenizer.batch([tokenizer.chat(prompt, thinking=True) for prompt in prompts], length)
    seen = np.minimum(-(-mask.sum(1) // WINDOW) * WINDOW, length)
    ids, mask = ids[:, : seen.max()], mask[:, : seen.max()]
    places = np.where(mask == 0, PADDED_AT, np.arange(mask.shape[1]))
    states = flow.states_of(encoder, layers, True, tree_of(params, "text_encoder"), ids, mask, places)
    return Tokens(states, jnp.asarray(np.arange(mask.shape[1]) < seen[:, None], jnp.int32))


class Flux3Condition(NamedTuple):
    """A text, (b, m, d), and what of it is seen, (b, m); pictures to keep to, (b, k, c); where a step goes, (b,)."""

    text: jax.Array
    mask: jax.Array
    references: jax.Array | None
    target: Any


@dataclasses.dataclass(frozen=True)
class Flux3Denoiser:
    """The transformer as (variables, x, t, condition) -> out, beside pictures to keep to of those sizes.

    Two of the same transformer are one function to the compiler.
    """

    transformer: Flux3Transformer2DModel
    references: tuple[Size, ...] = ()

    def __call__(self, variables: Any, x: jax.Array, t: jax.Array, told: Flux3Condition) -> jax.Array:
        """What points from the picture to noise."""
        batch, height, width, channels = x.shape
        length = told.text.shape[1]
        words = np.stack([np.zeros(length)] * 3 + [np.arange(length)], axis=-1).astype(np.float32)
        kept = [places_of(-1 - i, size) for i, size in enumerate(self.references)]
        said: Any = self.transformer.apply(
            variables, x.reshape(batch, height * width, channels), told.text, t / T, places_of(0, (height, width)),
            words, told.references, np.concatenate(kept) if kept else None, told.target, told.mask,
        )  # fmt: skip
        return said.reshape(x.shape)


def places_of(picture: int, size: Size) -> np.ndarray:
    """(h w, 4): 0, the row and the column of each square of latents, closer than they are, and the picture."""
    row, column = np.indices(size).reshape(2, -1)
    return np.stack([0 * row, CLOSER * row, CLOSER * column, 0 * row + picture], axis=-1).astype(np.float32)


def read(
    pipe: Flux3Pipeline, params: Params, plan: Plan, references: tuple[np.ndarray, ...], prompt: Prompt,
    prompt_embeds: Any, negative_prompt: Prompt, negative_prompt_embeds: Any, guidance_scale: Scale,
    num_images_per_prompt: int, max_sequence_length: int, text_encoder_out_layers: tuple[int, ...],
) -> Read:  # fmt: skip
    """Stage: the prompts, and the latents of pictures to keep to. Raises ValueError for prompts that are none."""
    distilled = pipe.transformer.flow_map
    found = flow.sides(
        _encoder(pipe, params, max_sequence_length, text_encoder_out_layers), flow.given_tokens,
        asks_guidance(guidance_scale) and not distilled, prompt, prompt_embeds, negative_prompt, negative_prompt_embeds,
    )  # fmt: skip
    sides = flow.repeated(flow.equally_long(found.positive, found.negative), num_images_per_prompt)
    count = len(sides[0].embeddings)
    kept, sizes = kept_of(pipe.vae, params, references, count)
    target = targets(plan, count) if distilled else None
    return flow.asked(
        Flux3Denoiser(pipe.transformer, sizes), params, sides, found.prompts,
        lambda side: Flux3Condition(side.embeddings, side.mask, kept, target),
    )  # fmt: skip


def targets(plan: Plan, count: int) -> ByRow:
    """(count,) at each row: the level to which a step goes, 0 at the last, as networks are told it."""
    xp: Any = jnp if isinstance(plan.t, jax.core.Tracer) else np
    t = xp.asarray(plan.t, xp.float32) / T
    rows = count_rows(plan)
    later = xp.where(np.arange(len(t)) < rows - 1, xp.roll(t, -1), 0)
    return ByRow(xp.broadcast_to(later[:, None], (len(t), count)))


def decode(
    pipe: Any, params: Params, latents: jax.Array, tile_size: int | None = None, *,
    box: tuple[int, int, int, int] | None = None,
) -> jax.Array:  # fmt: skip
    """Pictures (b, H, W, 3) in [-1, 1], or nearly so, of latents; box: (top, bottom, left, right), what of them."""
    drawn = latent.decode(pipe, params, latents, tile_size)
    top, bottom, left, right = box or (0, drawn.shape[1], 0, drawn.shape[2])
    return drawn[:, top:bottom, left:right]


drawing = Task(
    Flux3Text, (sized, planned_as_trained, read, from_noise, guided), pictures,
    "Draw pictures from text, and from pictures to keep to, with FLUX.3.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Flux3Pipeline(DiffusionPipeline):
    """Pictures from text, and from pictures to keep to, with FLUX.3 (Black Forest Labs 2026).

        pipe(params, "a red cat", key=jax.random.key(0))

    A text encoder that is None needs prompt_embeds. Of a distilled checkpoint the transformer has a flow_map.
    """

    family: ClassVar[str] = "FLUX.3"

    scheduler: Scheduler
    vae: AutoencoderKLFlux2
    text_encoder: Qwen3VLModel | None
    tokenizer: Qwen2Tokenizer | None
    transformer: Flux3Transformer2DModel

    encode_prompt = encode_prompt
    decode = decode
    __call__, steps = drawing.methods()
