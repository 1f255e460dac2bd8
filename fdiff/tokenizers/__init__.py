"""Tokenizers, read from the folders that Hub repositories have for them."""

from fdiff import registry
from fdiff.tokenizers.clip import CLIPTokenizer
from fdiff.tokenizers.fast import GemmaTokenizer, PreTrainedTokenizerFast
from fdiff.tokenizers.qwen2 import Qwen2Tokenizer
from fdiff.tokenizers.roberta import RobertaTokenizer
from fdiff.tokenizers.t5 import T5Tokenizer

__all__ = [
    "CLIPTokenizer", "GemmaTokenizer", "PreTrainedTokenizerFast", "Qwen2Tokenizer", "RobertaTokenizer", "T5Tokenizer",
]  # fmt: skip

registry.register(CLIPTokenizer)
registry.register(GemmaTokenizer, "GemmaTokenizer", "GemmaTokenizerFast")
registry.register(
    PreTrainedTokenizerFast, "PreTrainedTokenizerFast", "TokenizersBackend", "LlamaTokenizerFast", "PixtralProcessor"
)
registry.register(Qwen2Tokenizer, "Qwen2Tokenizer", "Qwen2TokenizerFast", "Qwen3VLProcessor")
registry.register(RobertaTokenizer, "RobertaTokenizer", "RobertaTokenizerFast")
registry.register(T5Tokenizer, "T5Tokenizer", "T5TokenizerFast")
