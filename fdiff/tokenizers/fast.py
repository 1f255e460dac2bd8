"""Tokenizers of any kind that tokenizer.json says whole: Mistral's and Gemma's, for two."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

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


@dataclasses.dataclass(frozen=True)
class GemmaTokenizer(PreTrainedTokenizerFast):
    """The same with Gemma's tokens; texts are padded behind, whatever the folder says, as pipelines have Gemma read.

    tokenizer = GemmaTokenizer.from_pretrained("Alpha-VLLM/Lumina-Image-2.0", subfolder="tokenizer")
    """

    first: ClassVar[tuple[str, ...]] = ("<bos>",)
    last: ClassVar[tuple[str, ...]] = ("<eos>",)

    @classmethod
    def further(cls, folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
        """The template, and the side of the padding."""
        return {**super().further(folder, config), "padding_side": "right"}
