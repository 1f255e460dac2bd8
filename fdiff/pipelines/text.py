"""Prompts to what the U-Nets of Stable Diffusion (one text encoder) and SDXL (two) are told of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import guidance, prompts, rows
from fdiff.adapters.ip_adapter import IPAdapter
from fdiff.adapters.ip_adapter import collection as adapter_collection
from fdiff.adapters.ip_adapter import features as adapter_features
from fdiff.image_processors import CLIPImageProcessor
from fdiff.lean import Program
from fdiff.models import UNet2DConditionModel, edits
from fdiff.pipelines import changing
from fdiff.pipelines.checks import either, finite, one_of
from fdiff.pipelines.denoise import Both, Condition, each, is_guided, told_scale
from fdiff.pipelines.inputs import spread
from fdiff.pipelines.pipeline import Params, tree_of
from fdiff.pipelines.requests import Pictures, Prompt, Scale
from fdiff.plan import Plan
from fdiff.prompts import Encoded
from fdiff.spacing import check_count


class Texts(NamedTuple):
    """Prompts encoded for b pictures, and what to move away from, None without guidance."""

    positive: Encoded | guidance.Sum  # of Encoded; their arrays are ByRow where a prompt changes in the run
    negative: Encoded | None
    attention: tuple[Any, Any] = (None, None)
    prompts: int = 1

    @property
    def batch_size(self) -> int:
        """How many pictures."""
        return first(self.positive).embeddings.shape[0]

    @property
    def dtype(self) -> Any:
        """What the text encoder computes in."""
        return first(self.positive).embeddings.dtype


class Counts(NamedTuple):
    """How many pictures of how many prompts are drawn, where a text is told otherwise; what its encoder computes in."""

    batch_size: int
    prompts: int
    dtype: Any


def first(encoded: Any) -> Encoded:
    """What is encoded, or the first of those that add up."""
    found: Encoded = encoded.conditions[0] if isinstance(encoded, guidance.Sum) else encoded
    return found


@dataclasses.dataclass(frozen=True)
class CLIPEncoder:
    """One text encoder of a family: the names of its tokenizer, of its model and of the prompt that it reads.

    It reads 77 tokens, or as many as its tokenizer says; with `penultimate` it gives what enters its last layer.
    """

    tokenizer: str = "tokenizer"
    model: str = "text_encoder"
    prompt: str = "prompt"
    penultimate: bool = False

    def tokens(self, pipe: Any, texts: Sequence[str], chunks: int = 1, **how: Any) -> prompts.Tokens:
        """The texts as arrays of at least so many chunks."""
        return prompts.tokenize(getattr(pipe, self.tokenizer), texts, chunks=chunks, **how)

    def encode(self, pipe: Any, params: Params, tokens: prompts.Tokens, clip_skip: int = 0) -> Encoded:
        """What the model makes of them."""
        lora = params.get("lora", {}).get(self.model)
        model, tree = getattr(pipe, self.model), tree_of(params, self.model)
        return encode_jit(model, tree, tokens, penultimate=self.penultimate, clip_skip=clip_skip, lora=lora)


encode_jit = functools.partial(Program, static_argnums=0, static_argnames=("penultimate", "clip_skip"))(prompts.encode)


def encode_prompt(
    pipe: Any, params: Params, prompt: Prompt, negative_prompt: Prompt = None, *, prompt_2: Prompt = None,
    negative_prompt_2: Prompt = None, clip_skip: int = 0, weighted: bool = False, chunked: bool = False,
) -> tuple[Encoded, Encoded]:  # fmt: skip
    """What the text encoders make of prompts and of negative ones: (embeddings (b, n, d), pooled (b, d)) each.

    The two are the prompt_embeds and negative_prompt_embeds of a call, of which only SDXL reads the pooled part.

    Args:
        params: with the text encoders'.
        prompt: a text or several.
        negative_prompt: one for all or one for each; nothing if not given.
        prompt_2, negative_prompt_2: what the second encoder of SDXL reads in place of those.
        clip_skip: how many of the last layers to leave out, of the prompt's; the negative one's stay, as on the Hub.
        weighted: "(a cat:1.3)" gives weights, see `fdiff.prompts.parse_weights`; what changes in a run, or adds up, a
            call of the pipeline alone reads.
        chunked: prompts of more than 75 tokens are read in chunks of them, and not cut.
    """
    texts, against = _asked(prompt, negative_prompt, prompt_2, negative_prompt_2)
    positive, negative = _encoded_texts(pipe, params, texts, against, clip_skip, weighted=weighted, chunked=chunked)
    return positive, _or_zeros(pipe, positive, negative, negative_prompt is None and negative_prompt_2 is None)


def _or_zeros(pipe: Any, positive: Encoded, negative: Encoded, nothing: bool) -> Encoded:
    """The negative one; zeros like the positive one where there is none and the checkpoint says so."""
    zeros = nothing and getattr(pipe, "force_zeros_for_empty_prompt", False)
    return jax.tree.map(jnp.zeros_like, positive) if zeros else negative


def _asked(
    prompt: Prompt, negative_prompt: Prompt, prompt_2: Prompt, negative_prompt_2: Prompt
) -> tuple[changing.Texts, changing.Texts]:
    """The prompts and the negative ones, as lists, for each encoder."""
    texts = listed("prompt", prompt)
    against = listed("negative_prompt", negative_prompt or "", len(texts))
    second = texts if prompt_2 is None else listed("prompt_2", prompt_2, len(texts))
    against_2 = against if negative_prompt_2 is None else listed("negative_prompt_2", negative_prompt_2, len(texts))
    return {"prompt": texts, "prompt_2": second}, {"prompt": against, "prompt_2": against_2}


def _encoded_texts(
    pipe: Any, params: Params, texts: changing.Texts, against: changing.Texts, clip_skip: int, **how: bool
) -> tuple[Encoded, Encoded]:
    """What the text encoders make of both, with as many chunks."""
    if not isinstance(clip_skip, int | np.integer) or clip_skip < 0:
        raise ValueError(f"clip_skip is {clip_skip!r}; it must be a whole number of 0 or more")
    count, read = len(texts["prompt"]), {name: [*texts[name], *against[name]] for name in texts}
    encoders = [one for one in pipe.encoders if getattr(pipe, one.model) is not None]
    if not encoders:
        raise ValueError(f"this {type(pipe).__name__} has no text encoder; pass prompt_embeds in place of a prompt")
    tokens = [one.tokens(pipe, read[one.prompt], **how) for one in encoders]
    chunks = max(each.ids.shape[1] for each in tokens)
    if any(each.ids.shape[1] < chunks for each in tokens):  # encoders whose embeddings lie side by side read as many
        tokens = [one.tokens(pipe, read[one.prompt], chunks, **how) for one in encoders]
    sides = []
    for start, stop, skip in ((0, count, clip_skip), (count, None, 0)):
        found = [
            one.encode(pipe, params, jax.tree.map(lambda leaf: leaf[start:stop], each), skip)  # noqa: B023
            for one, each in zip(encoders, tokens, strict=True)
        ]
        sides.append(Encoded(jnp.concatenate([one.embeddings for one in found], axis=-1), found[-1].pooled))
    return sides[0], sides[1]


class Seeing(NamedTuple):
    """The collections "attention" for the prompts and for the negative ones."""

    attention: Any


def seeing(
    pipe: Any, params: Params, attention: Any, ip_adapter: IPAdapter | None, ip_adapter_image: Pictures,
    ip_adapter_scale: Any,
) -> Seeing:  # fmt: skip
    """Stage: what an IP-Adapter makes of its picture, beside what changes attention already.

    Raises ValueError for a picture without an adapter or the other way round, and a pipeline without an image encoder.
    """
    if (ip_adapter is None) != (ip_adapter_image is None):
        raise ValueError("ip_adapter and ip_adapter_image belong together; pass both, or none")
    if ip_adapter is None:
        return Seeing(attention)
    encoder = getattr(pipe, "image_encoder", None)
    if encoder is None:
        raise ValueError("an ip_adapter_image needs an image_encoder; pass one to from_pretrained: image_encoder=...")
    pixels: Any = (getattr(pipe, "feature_extractor", None) or CLIPImageProcessor())(ip_adapter_image)
    features = adapter_features(ip_adapter, encoder, tree_of(params, "image_encoder"), pixels)
    found = [adapter_collection(ip_adapter, side, ip_adapter_scale) for side in features]
    if attention is not None:
        found = [edits.merge(one, more or {}) for one, more in zip(found, attention, strict=True)]
    return Seeing(tuple(found))


class Read(NamedTuple):
    """The prompts, encoded."""

    texts: Texts


def read(
    pipe: Any, params: Params, unet: UNet2DConditionModel, guidance_scale: Scale, prompt: Prompt, prompt_embeds: Any,
    num_images_per_prompt: int, attention: Any, clip_skip: int, weighted: bool, chunked: bool, plan: Plan,
    negative_prompt: Prompt = None, negative_prompt_embeds: Any = None, prompt_2: Prompt = None,
    negative_prompt_2: Prompt = None, guides: bool = False,
) -> Read:  # fmt: skip
    """Stage: both sides of the guidance as the user asks for them, each repeated for the pictures of a prompt.

    Raises ValueError for a prompt that is not a string, none or both of prompt and prompt_embeds, and embeddings that
    do not belong together.
    """
    guided = is_guided(unet, guidance_scale, guides)
    check_count("num_images_per_prompt", num_images_per_prompt)
    one_of(negative_prompt, negative_prompt_embeds, "negative_prompt")
    either(prompt, prompt_embeds)

    def encode(prompt: Prompt, clip_skip: int = 0) -> tuple[Encoded | guidance.Sum, Encoded]:
        asked = _asked(prompt, negative_prompt, prompt_2, negative_prompt_2)
        encoded = functools.partial(
            _encoded_texts, pipe, params, clip_skip=clip_skip, weighted=weighted, chunked=chunked
        )
        positive, negative = (
            changing.encode(encoded, *asked, changing.steps_of_rows(pipe.scheduler, plan)) if weighted
            else encoded(*asked)
        )
        nothing = negative_prompt is None and negative_prompt_2 is None
        return positive, _or_zeros(pipe, rows.at_row(first(positive), 0), negative, nothing)

    positive: Encoded | guidance.Sum
    negative: Encoded | None = None
    if prompt is not None:
        positive, negative = encode(prompt, clip_skip)
    else:
        positive = _encoded(pipe, "prompt_embeds", prompt_embeds)
        if guided and negative_prompt_embeds is None:
            _, negative = encode([""] * positive.embeddings.shape[0])
    if isinstance(positive, guidance.Sum) and not guided:
        raise ValueError("the prompt has AND, which adds prompts up by guidance; raise guidance_scale above 1, or "
                         "write it in small letters")
    if negative_prompt_embeds is not None:
        negative = _encoded(pipe, "negative_prompt_embeds", negative_prompt_embeds)
    shape = first(positive).embeddings.shape
    if guided and negative is not None and shape != negative.embeddings.shape:
        raise ValueError(
            f"prompt_embeds have shape {shape} and negative_prompt_embeds "
            f"{negative.embeddings.shape}; they must be equal"
        )
    count = num_images_per_prompt

    def repeated(leaf: Any) -> Any:
        return rows.each_row(leaf, lambda array: jnp.repeat(array, count, axis=0))

    both = (positive, negative if guided else None)
    pictures = jax.tree.map(repeated, both, is_leaf=lambda leaf: isinstance(leaf, rows.ByRow))
    texts = Texts(pictures[0], pictures[1], prompts=shape[0])
    return Read(texts._replace(attention=_for_batch(attention, texts.batch_size)))


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
        if len(pipe.encoders) > 1:
            raise ValueError(f"{name} of SDXL must be a pair (embeddings, pooled), as encode_prompt gives it")
        pooled = jnp.zeros(embeddings.shape[::2])  # which Stable Diffusion does not read
    if np.ndim(pooled) != 2 or len(pooled) != len(embeddings):
        raise ValueError(f"the second of {name} has shape {np.shape(pooled)}; it must be (batch, channels), as many as "
                         f"the first, {len(embeddings)}")
    return Encoded(embeddings, finite(name, jnp.asarray(pooled)))


class Conditions(NamedTuple):
    """What to draw and what not, as the U-Net is told it."""

    both: Both


def conditions(unet: UNet2DConditionModel, texts: Texts, guidance_scale: Scale, appended: Any = None) -> Conditions:
    """Stage: the two conditions of Stable Diffusion, `appended` being in both."""
    scale = told_scale(unet, guidance_scale, texts.batch_size)
    sides = zip((texts.positive, texts.negative), texts.attention, strict=True)

    def condition(side: Encoded, attention: Any) -> Condition:
        return Condition(side.embeddings, scale=scale, appended=appended, attention=attention)

    positive, negative = (each(side, functools.partial(condition, attention=attention)) for side, attention in sides)
    return Conditions((positive, negative))


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
