"""Textual inversion (Gal et al. 2022): new words, whose embeddings a text encoder learned.

    cat = textual_inversion.load("sd-concepts-library/cat-toy")         # its word is <cat-toy>
    pipe, params = textual_inversion.add(pipe, params, cat)
    images = pipe(params, "a <cat-toy> on the beach", key=key).images
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from convert import adapters
from convert.tensors import Tensor
from fdiff import hub
from fdiff.adapters import files
from fdiff.models.clip_text import CLIPTextModel, CLIPTextModelWithProjection
from fdiff.tokenizers.clip import CLIPTokenizer, concept_tokens

TextEncoder = CLIPTextModel | CLIPTextModelWithProjection

NAMES = ("learned_embeds.safetensors", "learned_embeds.bin")
TABLE = "text_model.embeddings.token_embedding"


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
    """Read a .safetensors, .bin or .pt file of diffusers, of A1111's web UI, of SDXL's trainers or of cloneofsimo.

    `source` is a file, a folder or a Hub id, `weight_name` the file in it where it has a name of its own.
    `token` is the word, that of the file or else its name if not given; of a file with several it chooses one.
    `hub_token` and the other arguments are those of `fdiff.hub`. Raises ValueError for a file without
    embeddings, and for one of several words where none is chosen.
    """
    place = hub.Source(source, subfolder, revision, cache_dir, hub_token, local_files_only, force_download)
    path = files.find(place, weight_name, NAMES)
    name, found = _read(path, token)
    arrays = [np.asarray(tensor.read(), np.float32) for tensor in found]
    vectors = tuple(array[None] if array.ndim == 1 else array for array in arrays)
    if not vectors or any(array.ndim != 2 or not array.size for array in vectors) or len(set(map(len, vectors))) != 1:
        raise ValueError(f"{path} holds no embeddings of words; choose a file of textual inversion.")
    word = token or name
    if not word.strip():
        raise ValueError(f"{path} holds an embedding of the empty word; name it with token=.")
    return Embedding(word, vectors)


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
    if "emb_params" in data:
        return file.stem, [data["emb_params"]]
    if data.keys() & {"clip_l", "clip_g"}:
        return file.stem, [data[name] for name in ("clip_l", "clip_g") if name in data]
    if token in data:
        return str(token), [data[token]]
    if len(data) > 1:
        raise ValueError(f"{file} holds several words, such as {', '.join(list(data)[:3])}; choose one with token=.")
    return next(iter(data), ""), list(data.values())


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
