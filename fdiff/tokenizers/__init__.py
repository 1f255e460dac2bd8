"""Tokenizers, read from the folders that Hub repositories have for them."""

from fdiff import registry
from fdiff.tokenizers.clip import CLIPTokenizer

__all__ = ["CLIPTokenizer"]

registry.register(CLIPTokenizer)
