"""CLIP's tokenizer: byte pairs of lower-cased text (Radford et al. 2021), read from a folder."""

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from fdiff.hub import Pretrained, Source, read_json, reading, staged
from fdiff.tokenizers.files import fetch_folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
SPECIAL = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
# What byte pairs stay within: special tokens, English endings, runs of letters, a digit, runs of other signs.
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class AddedToken(NamedTuple):
    """A token that is looked for before byte pairs are; where `normalized`, in the lower-cased text."""

    content: str
    special: bool = True
    normalized: bool = False
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class CLIPTokenizer(Pretrained):
    """Texts to ids and back.

        tokenizer = CLIPTokenizer.from_pretrained("openai/clip-vit-large-patch14")
        tokenizer.ids("a cat")      # [320, 2368]

    `model_max_length` is how many ids the text encoder takes, with those of the start and the end.
    """

    vocab: Mapping[str, int] = dataclasses.field(repr=False)
    merges: Sequence[tuple[str, str]] = dataclasses.field(repr=False)
    added: tuple[AddedToken, ...] = (AddedToken(START), AddedToken(END))
    bos_token: str = START
    eos_token: str = END
    unk_token: str = END
    pad_token: str = END
    model_max_length: int = 77

    @classmethod
    def from_source(cls, place: Source) -> Self:
        """Read the tokenizer of a folder or of a repository."""
        return cls.from_folder(fetch_folder(place))

    @classmethod
    def from_folder(cls, folder: str | Path) -> Self:
        """Read vocab.json and merges.txt, or tokenizer.json, and what is said of special tokens beside them.

        Raises FileNotFoundError where they are missing, ValueError where they are damaged.
        """
        folder = Path(folder)
        try:
            read = cls._read(folder)
            read.id(read.eos_token)  # which makes of them what reads texts, and refuses what does not fit
        except (OSError, Damaged):
            raise
        except Exception as error:  # whatever a value where no such one belongs raises, or the library tokenizers
            raise Damaged(f"{folder} holds the files of a tokenizer, which are damaged; get them again.") from error
        return read

    @classmethod
    def _read(cls, folder: Path) -> Self:
        config = _read_json(folder / "tokenizer_config.json") or {}
        whole = _read_json(folder / "tokenizer.json") or {}
        if "added_tokens_decoder" in config:
            listed = config["added_tokens_decoder"]
        else:  # as files were before 2023, and are again
            config |= _read_json(folder / "special_tokens_map.json") or {}
            more = _read_json(folder / "added_tokens.json") or {}
            listed = {i: {"content": token} for token, i in more.items()}
            listed |= {token["id"]: token for token in whole.get("added_tokens", ())}
        tokens = [_added_token(listed[key], special=False) for key in sorted(listed, key=int)]
        known = {token.content for token in tokens}
        named = [_added_token(config.get(key) or default, special=True) for key, default in SPECIAL.items()]
        last = {token.content: token for token in named if token.content not in known}
        added = (*last.values(), *tokens)
        start, end, unknown, pad = (token.content for token in named)
        vocab, merges = _read_pairs(folder, whole)
        most = config.get("model_max_length", 77)
        most = 77 if most > 2**31 else most  # transformers writes 1e30 where nobody said how many
        return cls(vocab, merges, added, start, end, unknown, pad, most)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write vocab.json, merges.txt and tokenizer_config.json, which appear together."""
        lines = ["#version: 0.2", *(" ".join(pair) for pair in self.merges)]
        config = {
            "added_tokens_decoder": {self.id(token.content): token._asdict() for token in self.added},
            "do_lower_case": True,
            "model_max_length": self.model_max_length,
            "tokenizer_class": type(self).__name__,
            **{key: getattr(self, key) for key in SPECIAL},
        }
        with staged(folder) as temporary:
            (temporary / "vocab.json").write_text(json.dumps(dict(self.vocab), ensure_ascii=False), "utf-8")
            (temporary / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
            (temporary / "tokenizer_config.json").write_text(json.dumps(config, indent=2, sort_keys=True), "utf-8")

    def __len__(self) -> int:
        """How many ids there are, added ones included: the vocab_size that a text encoder needs."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    def id(self, token: str) -> int:
        """The id of one token; ValueError where there is none."""
        found = self._backend.token_to_id(token)
        if found is None:
            raise ValueError(f"the tokenizer has no token {token!r}.")
        return found

    def ids(self, text: str) -> list[int]:
        """The ids of a text, without those of the start and the end."""
        if not isinstance(text, str):
            raise ValueError(f"a prompt must be a string, not {type(text).__name__}.")
        if any("\ud800" <= sign <= "\udfff" for sign in text):  # half of a pair, which no UTF-8 text has
            raise ValueError(f"a prompt must be Unicode text; {text!r} holds a lone surrogate: remove it.")
        found = self._backend.encode(text, add_special_tokens=False).ids
        return [one for first in found for one in self._concepts.get(first, (first,))]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, lower-cased and with spaces where words end."""
        return self._backend.decode(list(ids), skip_special_tokens=False).replace("</w>", " ").strip()

    def with_concept(self, token: str, vectors: int = 1) -> Self:
        """A tokenizer that also knows `token`, which stands for `vectors` new ids (textual inversion).

        Their names are token, token_1, token_2 and so on. ValueError where one of them is known already.
        """
        names = concept_tokens(token, vectors)
        for name in names:
            if self._backend.token_to_id(name) is not None:
                raise ValueError(f"the tokenizer knows {name!r} already; choose another token.")
        new = (AddedToken(name, special=False, normalized=True) for name in names)
        return dataclasses.replace(self, added=(*self.added, *new))

    @functools.cached_property
    def _concepts(self) -> dict[int, tuple[int, ...]]:
        """The first id of each added token that stands for several -> all of them."""
        names = {token.content for token in self.added if not token.special}
        concepts = {}
        for name in names:
            count = 1
            while f"{name}_{count}" in names:
                count += 1
            if count > 1:
                concepts[self.id(name)] = tuple(self.id(part) for part in concept_tokens(name, count))
        return concepts

    @functools.cached_property
    def _backend(self) -> "Tokenizer":
        import tokenizers
        from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

        pairs = models.BPE(dict(self.vocab), list(self.merges), end_of_word_suffix="</w>", unk_token=self.unk_token)
        backend = tokenizers.Tokenizer(pairs)
        backend.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        words = pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True)
        letters = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([words, letters])
        backend.decoder = decoders.ByteLevel()
        backend.add_tokens([tokenizers.AddedToken(**token._asdict()) for token in self.added])
        return backend


def concept_tokens(token: str, vectors: int) -> tuple[str, ...]:
    """The names of the ids that one token of textual inversion stands for."""
    return (token, *(f"{token}_{i}" for i in range(1, vectors)))


class Damaged(ValueError):
    """A sentence about the files of a tokenizer."""


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        return read_json(path)
    except ValueError as error:
        raise Damaged(str(error)) from error


def _read_pairs(folder: Path, whole: Mapping[str, Any]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary and the merges, of tokenizer.json where there is one."""
    if whole:
        model = whole["model"]
        if model.get("type", "BPE") != "BPE":
            raise Damaged(f"{folder / 'tokenizer.json'} holds a {model['type']} model; CLIP's is BPE.")
        merges = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in model["merges"]]
        return model["vocab"], merges
    vocab, path = _read_json(folder / "vocab.json"), folder / "merges.txt"
    if vocab is None or not path.is_file():
        raise FileNotFoundError(f"{folder} holds no tokenizer; it needs vocab.json and merges.txt, or tokenizer.json.")
    with reading(path):
        lines = path.read_text("utf-8").split("\n")
    merges = [tuple(line.split()) for line in lines if line.strip() and not line.startswith("#version")]
    return vocab, merges


def _added_token(entry: str | Mapping[str, Any], special: bool) -> AddedToken:
    """An entry of one of the JSON files: a name, or a name with its flags."""
    if isinstance(entry, str):
        return AddedToken(entry, special)
    flags = {"normalized": not special, **entry, "special": special or entry.get("special", False)}
    return AddedToken(**{key: flags[key] for key in AddedToken._fields if key in flags})
