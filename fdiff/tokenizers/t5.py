"""T5's tokenizer: the likeliest pieces of a text (Kudo 2018), from tokenizer.json or SentencePiece's own file."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fdiff.tokenizers.files import FILES
from fdiff.tokenizers.texts import TextTokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PIECES = "spiece.model"
EXTRA = 100  # tokens <extra_id_99> to <extra_id_0> stand behind the pieces
UNKNOWN = 2  # the kind of the piece that stands for what no piece is
SPACE = "\u2581"


class T5Tokenizer(TextTokenizer):
    """Texts to ids of pieces.

    tokenizer = T5Tokenizer.from_pretrained("stabilityai/stable-audio-open-1.0", subfolder="tokenizer")
    ids, mask = tokenizer.batch(["a dog barks"])
    """

    files: ClassVar[tuple[str, ...]] = (*FILES, PIECES)

    @classmethod
    def built(cls, folder: Path) -> "Tokenizer":
        """Of spiece.model. Raises FileNotFoundError where it is not there."""
        import tokenizers
        from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

        if not (folder / PIECES).is_file():
            raise FileNotFoundError(f"{folder} holds no tokenizer; it needs tokenizer.json or {PIECES}.")
        pieces: list[tuple[str, float]] = []
        unknown, charsmap = 0, b""
        for field, value in fields((folder / PIECES).read_bytes()):
            if field == 1:
                piece = dict(fields(value))
                unknown = len(pieces) if piece.get(3) == UNKNOWN else unknown
                pieces.append((piece[1].decode(), struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0))
            elif field == 3:
                charsmap = dict(fields(value)).get(2, b"")
        extra = [f"<extra_id_{i}>" for i in reversed(range(EXTRA))]
        pieces += [(token, 0.0) for token in extra]
        backend = tokenizers.Tokenizer(models.Unigram(pieces, unknown, False))
        steps: list[Any] = [normalizers.Precompiled(charsmap)] if charsmap else []
        steps += [normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), SPACE)]
        backend.normalizer = normalizers.Sequence(steps)
        backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
        backend.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
        backend.add_special_tokens(["<pad>", "</s>", "<unk>", *extra])
        return backend


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of the fields of a message of Protocol Buffers: whole numbers, or bytes.

    Raises ValueError for what is no such message.
    """
    at = 0

    def number() -> int:
        nonlocal at
        found = shift = 0
        while True:
            if at >= len(message) or shift > 63:
                raise ValueError("the file ends within a number.")
            byte = message[at]
            at, found, shift = at + 1, found | (byte & 127) << shift, shift + 7
            if byte < 128:
                return found

    while at < len(message):
        key = number()
        kind = key & 7
        if kind == 0:
            yield key >> 3, number()
            continue
        sizes = {1: 8, 5: 4}
        size = number() if kind == 2 else sizes.get(kind, -1)
        if size < 0 or at + size > len(message):
            raise ValueError("the file holds a field of no known kind, or is cut off.")
        yield key >> 3, message[at : at + size]
        at += size
