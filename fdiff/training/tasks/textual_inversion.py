"""A new word for a text-to-image model (textual inversion, Gal et al. 2022): its vectors alone are trained."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fdiff.adapters import textual_inversion as words
from fdiff.adapters.textual_inversion import TABLE, Embedding
from fdiff.pipelines.task import needed, option
from fdiff.tokenizers.clip import concept_tokens
from fdiff.training import data
from fdiff.training.data import Source
from fdiff.training.recipe import Recipe, Task, setting
from fdiff.training.tasks import latents
from fdiff.training.tasks.latents import Base, TextSettings
from fdiff.training.tasks.material import ENCODED, drawing, material


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordSettings(TextSettings):
    """Of a new word."""

    learning_rate: float = option(5e-3)
    token: str = needed("the new word, such as <my-cat>")
    initializer: str = needed("the word that it begins as, one token, such as cat")
    vectors: int = setting(1, "how many vectors stand for the word", least=1)
    prompts: str = option(
        "a {}|a picture of a {}|a photo of a {}|one {}|the {}",
        "texts of the pictures that have no caption, with | between; {} is the word",
    )

    def __post_init__(self) -> None:
        """Raise ValueError for what is out of range."""
        super().__post_init__()
        for name in ("token", "initializer"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be a word")


def recipe(settings: WordSettings, source: Source, folder: Path) -> Recipe:
    """The vectors of a word for each text encoder, saved as learned_embeds.safetensors and in the model."""
    base = latents.load(settings.model)
    begun = {one.model: beginning(base, settings, one.tokenizer, one.model) for one in base.pipe.encoders}
    known = with_word(base, settings.token, begun)
    found = material(
        known, settings, source, folder / ENCODED, texts=texts(settings, source), trains_text=True
    )
    ids = {one.model: word_ids(known.pipe, one.tokenizer, settings) for one in base.pipe.encoders}

    def loss(needs: Any, params: Any, batch: Any, key: jax.Array) -> jax.Array:
        changed = {name: with_rows(needs[name], ids[name], rows) for name, rows in params.items()}
        return latents.loss(known.pipe, settings, {**needs, **changed}, batch, key)

    def pipeline(params: Any) -> tuple[Any, Any]:
        return with_word(base, settings.token, params)

    needs = latents.frozen(settings, found.needs | {"unet": base.params["unet"]})
    return Recipe(
        begun, Partial(loss, needs), found.prepare, found.collate, pipeline, drawing(found), found.source,
        lambda folder, params: words.save(folder, embedding(settings.token, params)), shapes=found.shapes,
    )  # fmt: skip


def texts(settings: WordSettings, source: Source) -> list[list[str]]:
    """What each sample shows: its caption, or else all the prompts. Raises ValueError for texts without the word."""
    made = [text.replace("{}", settings.token) for text in (settings.prompt or settings.prompts).split("|")]
    found = [[text] if isinstance(text, str) else text or [] for text in data.texts(source)]
    for text in (one for some in [made, *found] for one in some):
        if settings.token not in text:
            raise ValueError(f"the text {text!r} has no {settings.token}, so it teaches nothing of it; write it there")
    if not any(found):
        return [made] * len(found)
    return [some or [made[i % len(made)]] for i, some in enumerate(found)]


def beginning(base: Base, settings: WordSettings, tokenizer: str, model: str) -> np.ndarray:
    """The vectors (n, width) of the initializer. Raises ValueError for one of several tokens."""
    ids = getattr(base.pipe, tokenizer).ids(settings.initializer)
    if len(ids) != 1:
        raise ValueError(f"initializer {settings.initializer!r} is {len(ids)} tokens; choose a word that is one")
    row = np.asarray(base.params[model][TABLE]["embedding"][ids[0]], np.float32)
    return np.repeat(row[None], settings.vectors, axis=0)


def embedding(token: str, params: Any) -> Embedding:
    """The word with its vectors for each text encoder, in order."""
    return Embedding(token, tuple(np.asarray(params[name], np.float32) for name in sorted(params)))


def with_word(base: Base, token: str, params: Any) -> Base:
    """The base that knows the word. Raises ValueError for one that it knows already."""
    return Base(*words.add(base.pipe, base.params, embedding(token, params)))


def word_ids(pipe: Any, tokenizer: str, settings: WordSettings) -> np.ndarray:
    """The ids that the word stands for."""
    named = concept_tokens(settings.token, settings.vectors)
    return np.array([getattr(pipe, tokenizer).id(name) for name in named])


def with_rows(tree: Any, ids: np.ndarray, rows: jax.Array) -> Any:
    """A text encoder's parameters with those rows in its table, through which alone gradients go."""
    table = jnp.asarray(tree[TABLE]["embedding"])
    return {**tree, TABLE: {"embedding": table.at[ids].set(rows.astype(table.dtype))}}


textual_inversion = Task(WordSettings, recipe, "A new word that stands for what a few pictures show.")
