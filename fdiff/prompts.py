"""Prompts to embeddings: attention weights, prompts of any length, and what a text encoder makes of them.

    tokens = tokenize(tokenizer, ["blurry", "a (red:1.3) cat"], weighted=True)      # on the host
    embeddings, pooled = encode(model, params, tokens)                              # pure: jit it, vmap it

Prompts that are used together, such as a negative and a positive one, belong in one call of `tokenize`: their
embeddings then have one length.
"""

import re
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdiff.models.clip_text import CLIPTextModel, CLIPTextModelWithProjection
from fdiff.tokenizers.clip import CLIPTokenizer

Array = jax.Array | np.ndarray

MORE = 1.1  # what a pair of round brackets multiplies by, and a pair of square ones divides by
PIECES = re.compile(
    r"\\(?P<escaped>[()\[\]\\]?)"
    r"|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)"
    r"|(?P<bracket>[()\[\]])"
    r"|(?P<text>[^()\[\]\\:]+|.)",
    re.DOTALL,
)


class Tokens(NamedTuple):
    """Prompts as arrays: b prompts of k chunks of n ids. A pytree, the arguments of `encode`."""

    ids: Array  # (b, k, n) int32, every chunk with its start, its end and padding
    mask: Array  # (b, k, n) int32, 1 up to the end of each chunk, 0 for padding
    weights: Array | None = None  # (b, k, n) float32, 1 but where a prompt says otherwise; None: all 1


class Encoded(NamedTuple):
    """What conditions a diffusion model."""

    embeddings: jax.Array  # (b, k * n, d)
    pooled: jax.Array  # (b, d), of the first chunk


def parse_weights(prompt: str) -> list[tuple[str, float]]:
    r"""Split a prompt at its brackets into texts and their weights.

    (text) weighs 1.1 times more, [text] 1.1 times less, (text:1.5) 1.5 times more; brackets nest, and one
    that never closes reaches to the end. Write \( \) \[ \] \\ for the signs themselves.
    """
    texts: list[str] = []
    weights: list[float] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}  # where each bracket that is still open began

    def close(bracket: str, factor: float) -> None:
        start = opened[bracket].pop()
        weights[start:] = [weight * factor for weight in weights[start:]]

    for piece in PIECES.finditer(prompt):
        bracket = piece["bracket"]
        if bracket in opened:
            opened[bracket].append(len(texts))
        elif bracket == ")" and opened["("]:
            close("(", MORE)
        elif bracket == "]" and opened["["]:
            close("[", 1 / MORE)
        elif piece["weight"] and opened["("]:
            close("(", float(piece["weight"]))
        else:
            texts.append(piece[0] if piece["escaped"] is None else piece["escaped"])
            weights.append(1.0)
    while opened["("]:
        close("(", MORE)
    while opened["["]:
        close("[", 1 / MORE)

    merged: list[tuple[str, float]] = []
    for text, weight in zip(texts, weights, strict=True):
        if merged and merged[-1][1] == weight:
            text = merged.pop()[0] + text
        merged.append((text, weight))
    return merged


def tokenize(
    tokenizer: CLIPTokenizer,
    prompts: str | Sequence[str],
    *,
    weighted: bool = False,
    chunked: bool = False,
    chunks: int = 1,
) -> Tokens:
    """Turn prompts into ids, padded to the length that the text encoder reads (77: a start, 75 ids, an end).

    weighted: brackets give weights, see `parse_weights`; else they are signs as any other.
    chunked: a longer prompt becomes several chunks of 75; else it is cut, and a warning says what is lost.
    chunks: at least so many, the last ones empty: of two encoders that are used together each reads as many.
    ValueError for a prompt that is not a string.
    """
    listed = list(prompts) if isinstance(prompts, list | tuple) else [prompts]
    room = tokenizer.model_max_length - 2
    rows = [_weighted_ids(tokenizer, prompt, weighted) for prompt in listed]
    if not chunked:
        for ids, _ in rows:
            if len(ids) > room:
                warnings.warn(
                    f"the prompt has {len(ids)} tokens and the text encoder reads {room}; this is cut off: "
                    f"{tokenizer.decode(ids[room:])!r} (chunked=True would keep it).",
                    stacklevel=2,
                )
        rows = [(ids[:room], weights[:room]) for ids, weights in rows]

    chunks = max([chunks, *(-(-len(ids) // room) for ids, _ in rows)])
    names = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token)
    start, end, pad = (tokenizer.id(name) for name in names)
    shape = (len(rows), chunks, room + 2)
    all_ids, mask = np.full(shape, pad, np.int32), np.zeros(shape, np.int32)
    all_weights = np.ones(shape, np.float32)
    for i, (ids, weights) in enumerate(rows):
        for j in range(chunks):
            part = slice(j * room, (j + 1) * room)
            used = len(ids[part]) + 2
            all_ids[i, j, :used] = [start, *ids[part], end]
            all_weights[i, j, 1 : used - 1] = weights[part]
            mask[i, j, :used] = 1
    return Tokens(all_ids, mask, all_weights if weighted else None)


def _weighted_ids(tokenizer: CLIPTokenizer, prompt: Any, weighted: bool) -> tuple[list[int], list[float]]:
    if not weighted or not isinstance(prompt, str):
        ids = tokenizer.ids(prompt)
        return ids, [1.0] * len(ids)
    pairs = [(one, weight) for text, weight in parse_weights(prompt) for one in tokenizer.ids(text)]
    return [one for one, _ in pairs], [weight for _, weight in pairs]


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
    each chunk's embeddings, as the programs do that made this way of writing common.
    """
    batch, chunks, length = tokens.ids.shape
    ids, mask = (jnp.reshape(x, (batch * chunks, length)) for x in (tokens.ids, tokens.mask))
    variables = {"params": params} | ({} if lora is None else {"lora": lora})
    output: Any = model.apply(variables, ids, mask if use_mask else None, clip_skip)
    hidden = output.hidden_states[-2 - clip_skip] if penultimate else output.last_hidden_state
    if tokens.weights is not None:
        wide = hidden.astype(jnp.float32)
        weighted = wide * jnp.reshape(tokens.weights, (batch * chunks, length, 1))
        gain = wide.mean((1, 2), keepdims=True) / weighted.mean((1, 2), keepdims=True)
        hidden = (weighted * gain).astype(hidden.dtype)
    pooled = output.text_embeds if hasattr(output, "text_embeds") else output.pooler_output
    return Encoded(hidden.reshape(batch, chunks * length, -1), pooled.reshape(batch, chunks, -1)[:, 0])
