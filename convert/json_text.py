"""JSON whose memory is known before it is parsed: a few bytes of it can ask for hundreds."""

import json
import os
from typing import Any

# What Python takes, in bytes, for a dict, a list, one more value of either, and a character, at most.
DICT, LIST, VALUE, CHARACTER = 240, 96, 110, 8
MOST = 250_000_000  # bytes for one text: the headers and indices of 100,000 tensors


def parse(text: bytes) -> Any:
    """The value of a text. ValueError for what is no JSON, is nested too deep or would fill the memory."""
    characters = len(text) * (3 if text.isascii() else CHARACTER)
    if characters + DICT * text.count(b"{") + LIST * text.count(b"[") + VALUE * text.count(b",") > MOST:
        raise ValueError("it holds more values than any model needs")
    try:
        return json.loads(text.decode())
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def read(file: str | os.PathLike[str]) -> Any:
    """The value in a file; errors as in `parse`, and OSError where it cannot be read."""
    with open(file, "rb") as stream:
        if os.fstat(stream.fileno()).st_size > MOST:
            raise ValueError("it is larger than any model needs")
        return parse(stream.read())
