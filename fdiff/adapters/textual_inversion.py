"""Textual inversion (Gal et al. 2022): new words, whose embeddings a text encoder learned.

    cat = textual_inversion.load("sd-concepts-library/cat-toy")         # its word is <cat-toy>
    pipe, params = textual_inversion.add(pipe, params, cat)
    images = pipe(params, "a <cat-toy> on the beach", key=key).images

Pivotal tuning learns words beside a LoRA. Those that a file names, or bundles with the LoRA, are chosen with
`token`; those that are rows of one table get their words from `split`:

    for word in textual_inversion.split(textual_inversion.load("emb.safetensors"), ["<s0>", "<s1>"]):
        pipe, params = textual_inversion.add(pipe, params, word)
"""

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from convert import adapters, lora_names, safetensors
from convert.tensors import Tensor
from fdiff import hub
from fdiff.adapters import files
from fdiff.models.clip_text import CLIPTextModel, CLIPTextModelWithProjection
from fdiff.tokenizers.clip import CLIPTokenizer, concept_tokens

TextEncoder = CLIPTextModel | CLIPTextModelWithProjection

NAMES = ("learned_embeds.safetensors", "learned_embeds.bin")
TABLE = "text_model.embeddings.token_embedding"
ENCODERS = (("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1"))  # how files name the encoders of SDXL


class Embedding(NamedTuple):
    """A word, and what stands for it in each text encoder, in order: several vectors are several tokens."""

    token: str
    vectors: tuple[np.ndarray, ...]  # (n, width of an encoder); SDXL has two


def load(
    source: str | Path,
    token: str | None = None,
    *,
    weight_name: str | None = None,
    subfolder: str | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    hub_token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Embedding:
    """Read a file of diffusers, of A1111's web UI, of SDXL's trainers, of pivotal tuning or of cloneofsimo.

    `source` is a file, a folder or a Hub id, `weight_name` the file in it where it has a name of its own.
    `token` is the word, that of the file or else its name if not given; of a file with several it chooses one.
    `hub_token` and the other arguments are those of `fdiff.hub`. Raises ValueError for a file without
    embeddings, and for one of several words where none is chosen.
    """
    place = hub.Source(source, subfolder, revision, cache_dir, hub_token, local_files_only, force_download)
    path = files.find(place, weight_name, NAMES)
    name, found = _read(path, token)
    if any(tensor.dtype.kind in "biuc" for tensor in found):
        raise ValueError(f"{path} holds {found[0].dtype} and no embeddings of words; download it again.")
    vectors = tuple(_rows(np.asarray(tensor.read(), np.float32)) for tensor in found)
    if not vectors or any(array.ndim != 2 or not array.size for array in vectors) or len(set(map(len, vectors))) != 1:
        raise ValueError(f"{path} holds no embeddings of words; choose a file of textual inversion.")
    word = token or name
    if not word.strip():
        raise ValueError(f"{path} holds an embedding of the empty word; name it with token=.")
    return Embedding(word, vectors)


def save(folder: str | os.PathLike[str], embedding: Embedding) -> None:
    """Write learned_embeds.safetensors, which `load` and diffusers read: the vectors under their word.

    Those of two encoders are clip_l and clip_g, as SDXL's trainers name them, and the file then names no word. Raises
    OSError.
    """
    names = (embedding.token,) if len(embedding.vectors) == 1 else ENCODERS[0]
    arrays = {
        name: safetensors.Array(rows.shape, rows.dtype, functools.partial(np.ascontiguousarray, rows))
        for name, rows in zip(names, embedding.vectors, strict=True)
    }
    with hub.staged(folder) as temporary:
        safetensors.write(temporary / NAMES[0], arrays)


def _rows(array: np.ndarray) -> np.ndarray:
    """Vectors (n, width) of one vector (width,), or of a batch of one (1, n, width)."""
    if array.ndim == 3 and len(array) == 1:
        return array[0]
    return array[None] if array.ndim == 1 else array


def _read(file: Path, token: str | None) -> tuple[str, list[Tensor]]:
    """The word that a file names, and its tensors."""
    data = adapters.read(file)
    if learned := {name for name, value in adapters.metadata(file).items() if value == "<embed>"}:  # beside a LoRA
        data = {name: tensor for name, tensor in data.items() if name in learned}
    if isinstance(data, Tensor):
        return file.stem, [data]
    data = data if isinstance(data, Mapping) else {}
    if isinstance(param := data.get("string_to_param"), Mapping):
        terms = [value for value in param.values() if isinstance(value, Tensor)]
        if len(terms) > 1:
            raise ValueError(f"{file} holds embeddings of {len(terms)} terms; save each in a file of its own.")
        return str(data.get("name") or file.stem), terms
    data = {name: value for name, value in data.items() if isinstance(name, str) and isinstance(value, Tensor)}
    bundled = _bundled(data)
    if bundled:
        word = token if token in bundled else _only(list(bundled), file)
        return word, _of_encoders(bundled[word], file) or list(bundled[word].values())[:1]
    if "emb_params" in data:
        return file.stem, [data["emb_params"]]
    if found := _of_encoders(data, file):
        return file.stem, found
    if token in data:
        return str(token), [data[token]]
    return (_only(list(data), file) if data else ""), list(data.values())


def _only(words: list[str], file: Path) -> str:
    if len(words) > 1:
        raise ValueError(f"{file} holds several words, such as {', '.join(words[:3])}; choose one with token=.")
    return words[0]


def _bundled(data: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """word -> part -> its tensor, of the words that lie in a file beside a LoRA."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in data.items():
        if match := lora_names.BUNDLED.fullmatch(name):
            found.setdefault(match["word"], {})[match["part"]] = tensor
    return found


def _of_encoders(data: Mapping[str, Tensor], file: Path) -> list[Tensor]:
    """The tensors that are named by the text encoder they are for, in order."""
    if "t5" in data:
        raise ValueError(f"{file} holds vectors for a T5 encoder, and words are for CLIP's alone; choose another file.")
    return next((found for names in ENCODERS if (found := [data[name] for name in names if name in data])), [])


def split(embedding: Embedding, tokens: Sequence[str]) -> list[Embedding]:
    """Each vector as a word of its own, of the encoders' tables that pivotal tuning writes.

    Raises ValueError where there are not as many tokens as vectors, or two alike.
    """
    words, count = list(tokens), len(embedding.vectors[0])
    if isinstance(tokens, str) or len(words) != count or len(set(words)) != count:
        raise ValueError(f"{embedding.token} has {count} vectors, and the tokens are {tokens!r}; give one for each.")
    return [Embedding(word, tuple(part[i : i + 1] for part in embedding.vectors)) for i, word in enumerate(words)]


def add(pipe: Any, params: Mapping[str, Any], embedding: Embedding) -> tuple[Any, dict[str, Any]]:
    """(pipe, params) that know the word: of SDXL's two text encoders each takes the vectors in its place.

    Vectors for one encoder alone go to every encoder that is as wide. Raises ValueError for a word that a
    tokenizer knows already, and for vectors that no encoder takes.
    """
    params = dict(params)
    changes: dict[str, Any] = {}
    encoders = [name for name in ("text_encoder", "text_encoder_2") if getattr(pipe, name, None) is not None]
    both = len(embedding.vectors) > 1
    for i, vectors in enumerate(embedding.vectors):
        place = encoders[i : i + 1] if both else encoders
        names = [name for name in place if getattr(pipe, name).hidden_size == vectors.shape[1]]
        if not names:
            raise ValueError(
                f"{embedding.token} has vectors of {vectors.shape[1]} numbers, and no text encoder takes these; "
                "it was learned for another base model."
            )
        for name in names:
            words = name.replace("text_encoder", "tokenizer")
            changes[words], changes[name], params[name] = extend(
                getattr(pipe, words), getattr(pipe, name), params[name], embedding.token, vectors
            )
    return pipe.replace(**changes), params


def extend(
    tokenizer: CLIPTokenizer, model: TextEncoder, params: Mapping[str, Any], token: str, vectors: np.ndarray
) -> tuple[CLIPTokenizer, TextEncoder, dict[str, Any]]:
    """A tokenizer, a text encoder and its parameters that know `token`, which stands for `vectors` (n, width).

    Raises ValueError for a token that is known already, and for vectors of another width.
    """
    table = params[TABLE]["embedding"]
    if vectors.shape[1] != table.shape[1]:
        raise ValueError(
            f"{token} has vectors of {vectors.shape[1]} numbers, and the text encoder takes {table.shape[1]}; "
            "it was learned for another base model."
        )
    tokenizer = tokenizer.with_concept(token, len(vectors))
    ids = np.array([tokenizer.id(name) for name in concept_tokens(token, len(vectors))])
    rows = max(len(table), int(ids.max()) + 1)
    larger = jnp.zeros((rows, table.shape[1]), table.dtype).at[: len(table)].set(table)
    changed = {**params, TABLE: {"embedding": larger.at[ids].set(jnp.asarray(vectors, table.dtype))}}
    return tokenizer, model.clone(vocab_size=rows), changed
