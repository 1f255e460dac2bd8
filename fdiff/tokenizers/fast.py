"""Tokenizers of any kind that tokenizer.json says whole: Mistral's, for one."""

import dataclasses
from typing import ClassVar

from fdiff.tokenizers.texts import ChatTokenizer


@dataclasses.dataclass(frozen=True)
class PreTrainedTokenizerFast(ChatTokenizer):
    """Texts to ids, after those with which tokenizer.json begins every text.

    tokenizer = PreTrainedTokenizerFast.from_pretrained("baidu/ERNIE-Image", subfolder="tokenizer")
    ids, mask = tokenizer.batch(["a red cat"], 512)
    """

    first: ClassVar[tuple[str, ...]] = ("<s>",)

    def ends(self) -> tuple[list[int], list[int]]:
        """The ids at the start and the end of every text: none at the end."""
        return self._backend.encode("").ids, []
