"""Qwen's tokenizer: byte pairs (Qwen Team 2024), and how a prompt becomes one side of a conversation."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fdiff.hub import read_json
from fdiff.tokenizers.files import read_byte_pairs
from fdiff.tokenizers.texts import CONFIG, ChatTokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

START, END = "<|im_start|>", "<|im_end|>"
NO_THOUGHT = "<think>\n\n</think>\n\n"
# What byte pairs stay within: English endings, letters with one sign before them, a digit, other signs with a space
# before and line ends behind them, and white space, of which the last sign goes with the word behind it.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclasses.dataclass(frozen=True)
class Qwen2Tokenizer(ChatTokenizer):
    """Texts to ids of pairs of bytes, for the language models of Qwen2 and Qwen3.

        tokenizer = Qwen2Tokenizer.from_pretrained("Tongyi-MAI/Z-Image-Turbo", subfolder="tokenizer")
        ids, mask = tokenizer.batch([tokenizer.chat("a red cat", thinking=True)], 512)

    `chat` says what the template makes of one prompt.
    """

    last: ClassVar[tuple[str, ...]] = ()
    pad: ClassVar[str] = "<|endoftext|>"

    def chat(self, prompt: str, *, thinking: bool) -> str:
        """The text that the model reads of a prompt: what a user said, and that the answer begins here.

        thinking: whether the answer may begin with a thought; else an empty one is there already, where the template
        of the checkpoint can say so.
        """
        silent = not thinking and (not self.chat_template or "enable_thinking" in self.chat_template)
        return f"{START}user\n{prompt}{END}\n{START}assistant\n{NO_THOUGHT if silent else ''}"

    def ends(self) -> tuple[list[int], list[int]]:
        """The ids at the start and the end of every text: as a rule none, but some checkpoints end texts by one."""
        return [], self._backend.encode("").ids

    def named(self) -> dict[str, str | None]:
        """The tokens that transformers is to know by what they are for."""
        return {"pad_token": self.pad, "eos_token": END, "unk_token": None, "bos_token": None}

    @classmethod
    def built(cls, folder: Path) -> "Tokenizer":
        """Of vocab.json, merges.txt and the added tokens in the files beside them."""
        import tokenizers
        from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

        vocab, merges = read_byte_pairs(folder)
        backend = tokenizers.Tokenizer(models.BPE(vocab, merges))
        backend.normalizer = normalizers.NFC()
        words = pre_tokenizers.Split(Regex(WORDS), behavior="isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        backend.decoder = decoders.ByteLevel()
        added = added_tokens(folder)
        backend.add_tokens([tokenizers.AddedToken(**added[number]) for number in sorted(added)])
        for number, token in added.items():
            if backend.token_to_id(token["content"]) != number:
                raise ValueError(f"{token['content']} has no number {number}.")
        return backend


def added_tokens(folder: Path) -> dict[int, Mapping[str, Any]]:
    """What is added to the pieces, by number: of tokenizer_config.json or, where it says nothing, added_tokens.json."""
    config, older = folder / CONFIG, folder / "added_tokens.json"
    listed = read_json(config).get("added_tokens_decoder") if config.is_file() else None
    if listed is None and older.is_file():
        listed = {number: {"content": token, "special": True} for token, number in read_json(older).items()}
    return {int(number): token for number, token in (listed or {}).items()}
