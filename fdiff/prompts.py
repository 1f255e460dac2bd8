"""Prompts to embeddings: attention weights, prompts of any length, and what a text encoder makes of them.

    tokens = tokenize(tokenizer, ["blurry", "a (red:1.3) cat"], weighted=True)      # on the host
    embeddings, pooled = encode(model, params, tokens)                              # pure: jit it, vmap it

Prompts that are used together, such as a negative and a positive one, belong in one call of `tokenize`: their
embeddings then have one length.
"""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import prompt_syntax
from fdiff.models.clip_text import CLIPTextModel, CLIPTextModelWithProjection
from fdiff.prompt_syntax import composition, parse_weights, schedule
from fdiff.tokenizers.clip import CLIPTokenizer

__all__ = ["Encoded", "Tokens", "composition", "encode", "parse_weights", "schedule", "tokenize"]

Array = jax.Array | np.ndarray

class Tokens(NamedTuple):
    """Prompts as arrays: b prompts of k chunks of n ids. A pytree, the arguments of `encode`."""

    ids: Array  # (b, k, n) int32, every chunk with its start, its end and padding
    mask: Array  # (b, k, n) int32, 1 up to the end of each chunk, 0 for padding
    weights: Array | None = None  # (b, k, n) float32, 1 but where a prompt says otherwise; None: all 1


class Encoded(NamedTuple):
    """What conditions a diffusion model."""

    embeddings: jax.Array  # (b, k * n, d)
    pooled: jax.Array  # (b, d), of the first chunk


def tokenize(
    tokenizer: CLIPTokenizer,
    prompts: str | Sequence[str],
    *,
    weighted: bool = False,
    chunked: bool = False,
    chunks: int = 1,
    cure: str = "chunked=True would keep it",
) -> Tokens:
    """Turn prompts into ids, padded to the length that the text encoder reads (77: a start, 75 ids, an end).

    weighted: brackets give weights and BREAK begins a chunk, see `fdiff.prompt_syntax`; else they are signs and a
    word as any other.
    chunked: a longer prompt becomes several chunks of 75; else it is cut, each part between two BREAKs by itself,
    and a warning says what is lost.
    chunks: at least so many, the last ones empty: of two encoders that are used together each reads as many.
    cure: what the warning says of a way out.
    ValueError for a prompt that is not a string, and, where weighted, for one that changes or adds up, which
    `schedule` and `composition` take apart.
    """
    listed = list(prompts) if isinstance(prompts, list | tuple) else [prompts]
    room = tokenizer.model_max_length - 2
    rows = [_chunks(tokenizer, prompt, room, weighted, chunked, cure) for prompt in listed]
    names = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token)
    start, end, pad = (tokenizer.id(name) for name in names)
    shape = (len(rows), max([chunks, *map(len, rows)]), room + 2)
    all_ids, mask = np.full(shape, pad, np.int32), np.zeros(shape, np.int32)
    all_weights = np.ones(shape, np.float32)
    for i, row in enumerate(rows):
        for j in range(shape[1]):
            ids, weights = row[j] if j < len(row) else ([], [])
            used = len(ids) + 2
            all_ids[i, j, :used] = [start, *ids, end]
            all_weights[i, j, 1 : used - 1] = weights
            mask[i, j, :used] = 1
    return Tokens(all_ids, mask, all_weights if weighted else None)


def _chunks(
    tokenizer: CLIPTokenizer, prompt: Any, room: int, weighted: bool, chunked: bool, cure: str
) -> list[tuple[list[int], list[float]]]:
    """The ids of each chunk, `room` of them at most, and their weights."""
    found = []
    for part in _parts(prompt) if weighted and isinstance(prompt, str) else [[(prompt, 1.0)]]:
        pairs = [(one, weight) for text, weight in part for one in tokenizer.ids(text)]
        if len(pairs) > room and not chunked:
            logging.getLogger("fdiff").warning(
                "the prompt has %d tokens and the text encoder reads %d; this is cut off: %r (%s)",
                len(pairs), room, tokenizer.decode([one for one, _ in pairs[room:]]), cure,
            )  # fmt: skip
            pairs = pairs[:room]
        for start in range(0, max(len(pairs), 1), room):
            chunk = pairs[start : start + room]
            found.append(([one for one, _ in chunk], [weight for _, weight in chunk]))
    return found


def _parts(prompt: str) -> list[list[tuple[str, float]]]:
    """The texts and weights of each chunk that a prompt asks for. ValueError for what one text alone cannot be."""
    if len(composition(prompt)) > 1:
        raise ValueError(
            "the prompt has AND, which adds prompts up; encode what prompts.composition makes of it, for "
            "guidance.composed, or write it in small letters."
        )
    if change := prompt_syntax.first_change(prompt):
        raise ValueError(
            f"the prompt has {change!r}, which changes while a picture is drawn; encode what prompts.schedule makes of "
            r"it, for the steps that it says, or write \[ and \] for the signs."
        )
    return prompt_syntax.parse_chunks(prompt)


def encode(
    model: CLIPTextModel | CLIPTextModelWithProjection,
    params: Any,
    tokens: Tokens,
    *,
    penultimate: bool = False,
    clip_skip: int = 0,
    use_mask: bool = False,
    lora: Any = None,
) -> Encoded:
    """Run a text encoder over every chunk and join the chunks; weights multiply what it gives.

    penultimate: what enters the last layer, not normalized (SDXL), in place of what leaves it, normalized.
    clip_skip: so many layers earlier. use_mask: no token looks at padding (few checkpoints want it).
    lora: a collection of that name to add while it runs, see `fdiff.adapters.lora.collection`.
    The pooled embedding is the projected one where the encoder has a projection. Weights keep the mean of
    each chunk's embeddings, as the programs do that made this way of writing common, but where that is 0.
    """
    batch, chunks, length = tokens.ids.shape
    ids, mask = (jnp.reshape(x, (batch * chunks, length)) for x in (tokens.ids, tokens.mask))
    variables = {"params": params} | ({} if lora is None else {"lora": lora})
    output: Any = model.apply(variables, ids, mask if use_mask else None, clip_skip)
    hidden = output.hidden_states[-2 - clip_skip] if penultimate else output.last_hidden_state
    if tokens.weights is not None:
        wide = hidden.astype(jnp.float32)
        weighted = wide * jnp.reshape(tokens.weights, (batch * chunks, length, 1))
        mean = weighted.mean((1, 2), keepdims=True)
        gain = jnp.where(mean == 0, 1, wide.mean((1, 2), keepdims=True) / jnp.where(mean == 0, 1, mean))
        hidden = (weighted * gain).astype(hidden.dtype)
    pooled = output.text_embeds if hasattr(output, "text_embeds") else output.pooler_output
    return Encoded(hidden.reshape(batch, chunks * length, -1), pooled.reshape(batch, chunks, -1)[:, 0])
