"""RoBERTa's tokenizer: byte pairs (Liu et al. 2019), which CLAP's text tower reads."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from fdiff.tokenizers.files import read_byte_pairs
from fdiff.tokenizers.texts import TextTokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


class RobertaTokenizer(TextTokenizer):
    """Texts to ids of pairs of bytes.

    tokenizer = RobertaTokenizer.from_pretrained("cvssp/audioldm-s-full-v2", subfolder="tokenizer")
    ids, mask = tokenizer.batch(["a dog barks"])
    """

    first: ClassVar[tuple[str, ...]] = ("<s>",)

    @classmethod
    def built(cls, folder: Path) -> "Tokenizer":
        """Of vocab.json and merges.txt. Raises FileNotFoundError where they are not there."""
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers

        vocab, merges = read_byte_pairs(folder)
        backend = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        known = [token for token in SPECIAL if backend.token_to_id(token) is not None]
        backend.add_special_tokens([tokenizers.AddedToken(token, lstrip=token == "<mask>") for token in known])
        return backend
