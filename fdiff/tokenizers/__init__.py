"""Tokenizers, read from the folders that Hub repositories have for them."""

from fdiff import registry
from fdiff.tokenizers.clip import CLIPTokenizer
from fdiff.tokenizers.roberta import RobertaTokenizer
from fdiff.tokenizers.t5 import T5Tokenizer

__all__ = ["CLIPTokenizer", "RobertaTokenizer", "T5Tokenizer"]

registry.register(CLIPTokenizer)
registry.register(RobertaTokenizer, "RobertaTokenizer", "RobertaTokenizerFast")
registry.register(T5Tokenizer, "T5Tokenizer", "T5TokenizerFast")
