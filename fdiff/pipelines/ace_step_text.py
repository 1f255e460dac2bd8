"""What ACE-Step 1.5 reads: a text of labelled parts, and lyrics behind their language."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fdiff.pipelines.pipeline import Params, applied, encoder_of, tree_of
from fdiff.pipelines.requests import Prompt
from fdiff.pipelines.text import listed
from fdiff.tokenizers.texts import Batch

# What the network was told to do, by the kind of task; a name goes into the brackets, or the second text is read.
INSTRUCTIONS = {
    "text2music": ("Fill the audio semantic mask based on the given conditions:",) * 2,
    "repaint": ("Repaint the mask area based on the given conditions:",) * 2,
    "cover": ("Generate audio semantic tokens based on the given conditions:",) * 2,
    "extract": ("Extract the {} track from the audio:", "Extract the track from the audio:"),
    "lego": (
        "Generate the {} track based on the audio context:", "Generate the track based on the audio context:"
    ),
    "complete": ("Complete the input track with {}:", "Complete the input track:"),
}  # fmt: skip
TEXT = "# Instruction\n{}\n\n# Caption\n{}\n\n# Metas\n{}<|endoftext|>\n"
METAS = "- bpm: {}\n- timesignature: {}\n- keyscale: {}\n- duration: {} seconds\n"
LYRICS = "# Languages\n{}\n\n# Lyric\n{}<|endoftext|>"
MOST_TEXT, MOST_LYRICS = 256, 2048  # tokens


class AceStepText(NamedTuple):
    """Texts (b, n, d) and lyrics (b, m, d) as the text encoder gives them, and 1 where there is some, (b, n), (b, m).

    What the text encoder makes of texts, and its bare embeddings of lyrics.
    """

    text: jax.Array
    text_mask: jax.Array
    lyrics: jax.Array
    lyrics_mask: jax.Array


def instruction_of(task_type: str, track_name: str | None, classes: Sequence[str]) -> str:
    """What the network is told to do. Raises ValueError for a kind of task that there is not."""
    if task_type not in INSTRUCTIONS:
        raise ValueError(f"task_type is {task_type!r}; it can be {', '.join(INSTRUCTIONS)}")
    name = " | ".join(classes) if task_type == "complete" else track_name
    named, plain = INSTRUCTIONS[task_type]
    return named.format(name.upper()) if name else plain


def encode_prompt(
    pipe: Any, params: Params, prompt: Prompt, lyrics: Prompt = "", *, seconds: float = 60.0,
    vocal_language: Prompt = "en", instruction: str | None = None, bpm: int | None = None, keyscale: str | None = None,
    timesignature: str | None = None,
) -> AceStepText:  # fmt: skip
    """What the network reads of prompts and lyrics: the `prompt_embeds` of a call; options are those of a call.

    Raises ValueError where the pipeline has no text encoder, or for texts that are none.
    """
    prompts = listed("prompt", prompt)
    sung, spoken = (
        listed(name, texts, len(prompts)) for name, texts in (("lyrics", lyrics), ("vocal_language", vocal_language))
    )
    told = (instruction or INSTRUCTIONS["text2music"][0]).removesuffix(":") + ":"
    beats = bpm if bpm is not None and bpm > 0 else "N/A"
    metas = METAS.format(beats, *(((one or "").strip() and one) or "N/A" for one in (timesignature, keyscale)),
                         int(seconds))
    _, tokenizer = encoder_of(pipe)
    return encode_ids(
        pipe, params, tokenizer.batch([TEXT.format(told, one, metas) for one in prompts], MOST_TEXT),
        tokenizer.batch([LYRICS.format(*pair) for pair in zip(spoken, sung, strict=True)], MOST_LYRICS),
    )


def encode_ids(pipe: Any, params: Params, text: Batch, lyrics: Batch) -> AceStepText:
    """The same of tokens: of texts, whose layout `encode_prompt` knows, and of lyrics, padding behind them.

    Raises ValueError where the pipeline has no text encoder.
    """
    encoder = pipe.text_encoder
    if encoder is None:
        raise ValueError(f"{type(pipe).__name__} has no text_encoder; pass prompt_embeds")
    # As long as the longest: what is padded is not masked later, and would be heard.
    (text_ids, text_mask), (lyric_ids, lyric_mask) = (
        (ids[:, : int(mask.sum(1).max())], mask[:, : int(mask.sum(1).max())]) for ids, mask in (text, lyrics)
    )
    tree = tree_of(params, "text_encoder")
    read = applied(encoder, tree, jnp.asarray(text_ids))[0]
    bare: Any = encoder.apply({"params": tree}, jnp.asarray(lyric_ids), hidden_layers=(0,))
    return AceStepText(read, jnp.asarray(text_mask), bare[0], jnp.asarray(lyric_mask))
