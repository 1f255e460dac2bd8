"""Prompts to the conditions of Stable Diffusion (one text encoder) and SDXL (two)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import prompts
from fdiff.pipelines.checks import finite, numeric
from fdiff.pipelines.denoise import Condition, Scale, told_scale
from fdiff.pipelines.inputs import spread
from fdiff.pipelines.pipeline import Params, tree_of
from fdiff.prompts import Encoded, Tokens
from fdiff.spacing import check_count

Prompt = str | Sequence[str] | None
Size = tuple[int, int]


class Asked(NamedTuple):
    """What a user says of the text; embeddings go before prompts."""

    prompt: Prompt = None
    negative_prompt: Prompt = None
    prompt_embeds: Any = None
    negative_prompt_embeds: Any = None
    num_images_per_prompt: int = 1
    clip_skip: int = 0
    attention: Any = None


class MicroConditions(NamedTuple):
    """What SDXL is told of a picture (Podell et al. 2023, section 2.2): sizes are (height, width) in pixels.

    original_size, target_size: that of the picture to draw if not given; crops_coords_top_left: where it was cut out
    of a larger one. The negative prompt goes with the same ones, unless it is given its own. The refiner is told how
    beautiful the picture is, in place of the target size.
    """

    original_size: Size | None = None
    crops_coords_top_left: Size = (0, 0)
    target_size: Size | None = None
    negative_original_size: Size | None = None
    negative_crops_coords_top_left: Size | None = None
    negative_target_size: Size | None = None
    aesthetic_score: float = 6.0
    negative_aesthetic_score: float = 2.5


class Texts(NamedTuple):
    """Prompts encoded for b pictures, and what to move away from, None without guidance."""

    positive: Encoded
    negative: Encoded | None
    attention: tuple[Any, Any] = (None, None)
    prompts: int = 1

    @property
    def batch_size(self) -> int:
        """How many pictures."""
        return self.positive.embeddings.shape[0]

    @property
    def dtype(self) -> Any:
        """What the text encoder computes in."""
        return self.positive.embeddings.dtype


encode_jit = functools.partial(jax.jit, static_argnums=0, static_argnames=("penultimate", "clip_skip"))(prompts.encode)


def encode_prompt(
    pipe: Any,
    params: Params,
    prompt: Prompt,
    negative_prompt: Prompt = None,
    *,
    prompt_2: Prompt = None,
    negative_prompt_2: Prompt = None,
    clip_skip: int = 0,
    weighted: bool = False,
    chunked: bool = False,
) -> tuple[Encoded, Encoded]:
    """What the text encoders make of prompts and of negative ones: (embeddings (b, n, d), pooled (b, d)) each.

    The two are the prompt_embeds and negative_prompt_embeds of a call, of which only SDXL reads the pooled part.

    Args:
        params: with the text encoders'.
        prompt: a text or several.
        negative_prompt: one for all or one for each; nothing if not given.
        prompt_2, negative_prompt_2: what the second encoder of SDXL reads in place of those.
        clip_skip: how many of the last layers to leave out, of the prompt's; the negative one's stay, as on the Hub.
        weighted: "(a cat:1.3)" gives weights, see `fdiff.prompts.parse_weights`.
        chunked: prompts of more than 75 tokens are read in chunks of them, and not cut.
    """
    if not isinstance(clip_skip, int | np.integer) or clip_skip < 0:
        raise ValueError(f"clip_skip is {clip_skip!r}; it must be a whole number of 0 or more")
    texts = listed("prompt", prompt)
    against = listed("negative_prompt", negative_prompt or "", len(texts))
    seconds = texts if prompt_2 is None else listed("prompt_2", prompt_2, len(texts))
    against_2 = against if negative_prompt_2 is None else listed("negative_prompt_2", negative_prompt_2, len(texts))
    large = hasattr(pipe, "text_encoder_2")
    encoders = [("tokenizer", "text_encoder", texts, against)]
    if large:
        encoders.append(("tokenizer_2", "text_encoder_2", seconds, against_2))
    found = []
    for tokenizer, name, positive, negative in encoders:
        model = getattr(pipe, name)
        if model is None:
            continue
        tokens = prompts.tokenize(getattr(pipe, tokenizer), [*positive, *negative], weighted=weighted, chunked=chunked)
        lora = params.get("lora", {}).get(name)
        encode = functools.partial(encode_jit, model, tree_of(params, name), penultimate=large, lora=lora)
        found.append([encode(_part(tokens, 0, len(texts)), clip_skip=clip_skip), encode(_part(tokens, len(texts)))])
    if not found:
        raise ValueError(f"this {type(pipe).__name__} has no text encoder; pass prompt_embeds in place of a prompt")
    joined = [
        Encoded(jnp.concatenate([one.embeddings for one in side], axis=-1), side[-1].pooled)
        for side in zip(*found, strict=True)
    ]
    if large and negative_prompt is None and negative_prompt_2 is None and pipe.force_zeros_for_empty_prompt:
        joined[1] = jax.tree.map(jnp.zeros_like, joined[0])
    return joined[0], joined[1]


def _part(tokens: Tokens, start: int, stop: int | None = None) -> Tokens:
    part: Tokens = jax.tree.map(lambda leaf: leaf[start:stop], tokens)
    return part


def encode_asked(pipe: Any, params: Params, asked: Asked, guided: bool) -> Texts:
    """Both sides of the guidance as the user asks for them, each repeated for the pictures of a prompt.

    Raises ValueError for a prompt that is not a string, none or both of prompt and prompt_embeds, and embeddings that
    do not belong together.
    """
    check_count("num_images_per_prompt", asked.num_images_per_prompt)
    if asked.negative_prompt is not None and asked.negative_prompt_embeds is not None:
        raise ValueError("both negative_prompt and negative_prompt_embeds are given; pass one of them")
    if (asked.prompt is None) == (asked.prompt_embeds is None):
        raise ValueError("pass either prompt or prompt_embeds" + (", not both" if asked.prompt is not None else ""))
    negative: Encoded | None = None
    if asked.prompt is not None:
        positive, negative = encode_prompt(
            pipe, params, asked.prompt, asked.negative_prompt, clip_skip=asked.clip_skip
        )
    else:
        positive = _encoded(pipe, "prompt_embeds", asked.prompt_embeds)
        if guided and asked.negative_prompt_embeds is None:
            blanks = [""] * positive.embeddings.shape[0]
            _, negative = encode_prompt(pipe, params, blanks, asked.negative_prompt)
    if asked.negative_prompt_embeds is not None:
        negative = _encoded(pipe, "negative_prompt_embeds", asked.negative_prompt_embeds)
    if guided and negative is not None and positive.embeddings.shape != negative.embeddings.shape:
        raise ValueError(
            f"prompt_embeds have shape {positive.embeddings.shape} and negative_prompt_embeds "
            f"{negative.embeddings.shape}; they must be equal"
        )
    count = asked.num_images_per_prompt
    each = jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=0), (positive, negative if guided else None))
    texts = Texts(each[0], each[1], prompts=positive.embeddings.shape[0])
    return texts._replace(attention=_for_batch(asked.attention, texts.batch_size))


def _for_batch(attention: Any, batch_size: int) -> tuple[Any, Any]:
    """The user's collections "attention" for both sides, every leaf (b, ...)."""
    if attention is None:
        return None, None
    if not isinstance(attention, tuple) or len(attention) != 2:
        raise ValueError("attention must be a pair: the collection for the prompts, and that for the negative ones")

    def batched(leaf: Any) -> jax.Array:
        leaf = jnp.asarray(leaf)
        leaf = leaf.reshape(1, 1, 1, 1) if leaf.ndim == 0 else leaf
        return spread("attention", leaf, batch_size)

    return jax.tree.map(batched, attention)


def _encoded(pipe: Any, name: str, given: Any) -> Encoded:
    """The user's embeddings, with or without their pooled part, which SDXL needs."""
    pair = isinstance(given, tuple) or (isinstance(given, list) and len(given) == 2 and np.ndim(given[0]) == 3)
    embeddings, pooled = given if pair else (given, None)
    if isinstance(embeddings, list):
        embeddings = np.asarray(embeddings, np.float32)
    if not hasattr(embeddings, "shape") or embeddings.ndim != 3:
        what = f"shape {embeddings.shape}" if hasattr(embeddings, "shape") else f"the type {type(given).__name__}"
        raise ValueError(f"{name} has {what}; it must be an array (batch, tokens, channels), from encode_prompt")
    embeddings = finite(name, jnp.asarray(embeddings))
    if pooled is None:
        if hasattr(pipe, "text_encoder_2"):
            raise ValueError(f"{name} of SDXL must be a pair (embeddings, pooled), as encode_prompt gives it")
        pooled = jnp.zeros(embeddings.shape[::2])  # which Stable Diffusion does not read
    if np.ndim(pooled) != 2 or len(pooled) != len(embeddings):
        raise ValueError(f"the second of {name} has shape {np.shape(pooled)}; it must be (batch, channels), as many as "
                         f"the first, {len(embeddings)}")
    return Encoded(embeddings, finite(name, jnp.asarray(pooled)))


def conditions(
    pipe: Any, texts: Texts, scale: Scale, appended: jax.Array | None = None
) -> tuple[Condition, Condition | None]:
    """The two conditions of Stable Diffusion, `appended` being in both."""
    told = told_scale(pipe.unet, scale, texts.batch_size)

    def condition(text: Encoded, attention: Any) -> Condition:
        return Condition(text.embeddings, scale=told, appended=appended, attention=attention)

    return _both(texts, condition)


def conditions_xl(
    pipe: Any,
    texts: Texts,
    scale: Scale,
    micro: MicroConditions | None,
    size: Size,
    appended: jax.Array | None = None,
) -> tuple[Condition, Condition | None]:
    """The two conditions of SDXL, `size` being that of the picture in pixels."""
    told = told_scale(pipe.unet, scale, texts.batch_size)
    ids, negative_ids = time_ids(pipe, MicroConditions() if micro is None else micro, size)

    def condition(text: Encoded, attention: Any) -> Condition:
        numbers = jnp.asarray(ids if text is texts.positive else negative_ids, jnp.float32)
        many = jnp.broadcast_to(numbers, (texts.batch_size, len(numbers)))
        added = {"text_embeds": text.pooled, "time_ids": many}
        return Condition(text.embeddings, added, scale=told, appended=appended, attention=attention)

    return _both(texts, condition)


def _both(texts: Texts, condition: Callable[[Encoded, Any], Condition]) -> tuple[Condition, Condition | None]:
    positive = condition(texts.positive, texts.attention[0])
    return positive, None if texts.negative is None else condition(texts.negative, texts.attention[1])


def time_ids(pipe: Any, micro: MicroConditions, size: Size) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The numbers that SDXL is told: original size, crop, and target size or, to the refiner, the score.

    Raises ValueError for micro-conditions that are not pairs of numbers, and scores that are none.
    """
    if not isinstance(micro, MicroConditions):
        raise ValueError(f"micro_conditions must be fdiff.MicroConditions, not {type(micro).__name__}")
    for name, value in micro._asdict().items():
        if value is None or any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value)):
            continue
        numbers, wanted = np.asarray(value), () if name.endswith("score") else (2,)
        if numbers.shape != wanted or not numeric(numbers):
            raise ValueError(f"{name} of micro_conditions is {value!r}; it must be "
                             f"{'a number' if wanted == () else 'two numbers, (height, width)'}")
    original, target = _or(micro.original_size, size), _or(micro.target_size, size)
    against, against_target = _or(micro.negative_original_size, original), _or(micro.negative_target_size, target)
    scored = getattr(pipe, "requires_aesthetics_score", False)
    same = not scored and micro.negative_original_size is None and micro.negative_target_size is None
    crops = micro.crops_coords_top_left
    against_crops = _or(micro.negative_crops_coords_top_left, crops if same else (0, 0))
    if scored:
        return (*original, *crops, micro.aesthetic_score), (*against, *against_crops, micro.negative_aesthetic_score)
    return (*original, *crops, *target), (*against, *against_crops, *against_target)


def _or(given: Any, default: Any) -> Any:
    return default if given is None else given


def listed(name: str, texts: Prompt, count: int | None = None) -> list[str]:
    """A prompt as a list, repeated to `count` where it is one.

    Raises ValueError for what is not a string or a list of them, an empty list, and another number than `count`.
    """
    found = [texts] if isinstance(texts, str) else list(texts) if isinstance(texts, list | tuple) else None
    if found is None or not all(isinstance(text, str) for text in found):
        wrong = texts if found is None else next(text for text in found if not isinstance(text, str))
        raise ValueError(f"{name} must be a string or a list of strings, not {type(wrong).__name__}")
    if not found:
        raise ValueError(f"{name} is an empty list; pass one text or more")
    if count is not None and len(found) not in (1, count):
        raise ValueError(f"{len(found)} texts are given as {name} for {count} prompts; pass one, or one for each")
    return found * count if count is not None and len(found) == 1 else found
