"""What the tokenizers of RoBERTa, T5 and Qwen share: texts to arrays of ids, read from a folder and written to one."""

import dataclasses
import functools
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np

from fdiff.hub import Pretrained, Source, read_json, reading, staged
from fdiff.tokenizers.files import FILES, fetch_folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CONFIG, WHOLE, TEMPLATE = "tokenizer_config.json", "tokenizer.json", "chat_template.jinja"
UNBOUNDED = 2**31  # transformers writes 1e30 where nobody said how many ids a model reads


class Batch(NamedTuple):
    """Ids of texts (b, n), and 1 where they are of the text, 0 where they pad it (b, n)."""

    input_ids: np.ndarray
    attention_mask: np.ndarray


@dataclasses.dataclass(frozen=True)
class TextTokenizer(Pretrained):
    """Texts to ids, between those that every text has at its start and its end.

    `written` is what tokenizer.json holds, and `model_max_length` how many ids the text encoder takes; padding_side,
    "right" or "left", is where texts are padded.
    """

    written: str = dataclasses.field(repr=False)
    model_max_length: int = 512
    padding_side: str = "right"

    first: ClassVar[tuple[str, ...]] = ()  # the tokens at the start of every text
    last: ClassVar[tuple[str, ...]] = ("</s>",)
    pad: ClassVar[str] = "<pad>"
    files: ClassVar[tuple[str, ...]] = FILES

    @classmethod
    def from_source(cls, place: Source) -> Self:
        """Read the tokenizer of a folder or of a repository."""
        return cls.from_folder(fetch_folder(place, cls.files))

    @classmethod
    def from_folder(cls, folder: str | Path) -> Self:
        """Read tokenizer.json, or what there is in its place, and how many ids a text has.

        Raises FileNotFoundError where they are missing, ValueError where they are damaged.
        """
        folder = Path(folder)
        config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
        most = config.get("model_max_length", 512)
        try:
            whole = (folder / WHOLE).read_text("utf-8") if (folder / WHOLE).is_file() else cls.built(folder).to_str()
            side = "left" if config.get("padding_side") == "left" else "right"
            fields = {"padding_side": side, **cls.further(folder, config)}
            read = cls(whole, 512 if most > UNBOUNDED else int(most), **fields)
            read.batch([""])  # which refuses what does not fit
        except OSError:
            raise
        except Exception as error:  # whatever a value where no such one belongs raises, or the library tokenizers
            raise ValueError(f"{folder} holds the files of a tokenizer, which are damaged; get them again.") from error
        return read

    @classmethod
    def built(cls, folder: Path) -> "Tokenizer":
        """What tokenizer.json would hold, of the older files. Raises FileNotFoundError where there are none."""
        raise FileNotFoundError(f"{folder} holds no tokenizer; it needs {WHOLE}.")

    @classmethod
    def further(cls, folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
        """Fields that a tokenizer has besides, of the files in its folder and what tokenizer_config.json says."""
        return {}

    def named(self) -> dict[str, str | None]:
        """The tokens that transformers is to know by what they are for."""
        start = {"bos_token": self.first[0]} if self.first else {}
        return {"pad_token": self.pad, "eos_token": self.last[-1], "unk_token": "<unk>", **start}

    def written_beside(self) -> dict[str, str]:
        """Further files and what they hold."""
        return {}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, and what belongs beside them, which appear together."""
        config = {"model_max_length": self.model_max_length, "tokenizer_class": type(self).__name__, **self.named()}
        config |= {} if self.padding_side == "right" else {"padding_side": self.padding_side}
        with staged(folder) as temporary:
            (temporary / WHOLE).write_text(self.written, "utf-8")
            (temporary / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), "utf-8")
            for name, text in self.written_beside().items():
                (temporary / name).write_text(text, "utf-8")

    def ids(self, text: str) -> list[int]:
        """The ids of a text, without those of the start and the end."""
        if not isinstance(text, str) or any("\ud800" <= sign <= "\udfff" for sign in text):
            raise ValueError(f"a prompt must be Unicode text; it is {text!r}.")
        found: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return found

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=False)
        return text

    def ends(self) -> tuple[list[int], list[int]]:
        """The ids that every text has at its start, and at its end."""
        return [self.id(token) for token in self.first], [self.id(token) for token in self.last]

    def batch(self, texts: Sequence[str], length: int | None = None) -> Batch:
        """The texts, padded to `length`, model_max_length if not given.

        Longer ones are cut before their end, and a warning says what is lost.
        """
        length = self.model_max_length if length is None else length
        first, last = self.ends()
        ids = np.full((len(texts), length), self.id(self.pad), np.int32)
        mask = np.zeros_like(ids)
        for row, text in enumerate(texts):
            found = self.ids(text)
            kept = found[: length - len(first) - len(last)]
            if len(kept) < len(found):
                logging.getLogger("fdiff").warning(
                    "the prompt has %d tokens and the text encoder reads %d; this is cut off: %r",
                    len(found), len(kept), self.decode(found[len(kept) :]),
                )  # fmt: skip
            whole = [*first, *kept, *last]
            start = length - len(whole) if self.padding_side == "left" else 0
            own = slice(start, start + len(whole))
            ids[row, own], mask[row, own] = whole, 1
        return Batch(ids, mask)

    def id(self, token: str) -> int:
        """The id of one token; ValueError where there is none."""
        found: int | None = self._backend.token_to_id(token)
        if found is None:
            raise ValueError(f"the tokenizer has no token {token!r}.")
        return found

    def __len__(self) -> int:
        """How many ids there are, added ones included."""
        count: int = self._backend.get_vocab_size(with_added_tokens=True)
        return count

    @functools.cached_property
    def _backend(self) -> Any:
        import tokenizers

        backend = tokenizers.Tokenizer.from_str(self.written)
        backend.no_truncation()
        backend.no_padding()
        return backend


@dataclasses.dataclass(frozen=True)
class ChatTokenizer(TextTokenizer):
    """The same for a model that was trained on conversations, whose template is kept for transformers."""

    chat_template: str = dataclasses.field(default="", repr=False)

    files: ClassVar[tuple[str, ...]] = (*FILES, TEMPLATE)

    @classmethod
    def further(cls, folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
        """The template, which newer checkpoints have in a file of its own."""
        if not (folder / TEMPLATE).is_file():
            return {"chat_template": config.get("chat_template") or ""}
        with reading(folder / TEMPLATE):
            return {"chat_template": (folder / TEMPLATE).read_text("utf-8")}

    def written_beside(self) -> dict[str, str]:
        """The template."""
        return {TEMPLATE: self.chat_template} if self.chat_template else {}
