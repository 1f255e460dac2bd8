"""What a picture says of how it was drawn: the text that AUTOMATIC1111's web UI writes, and many tools read.

    a cat on a mat
    Negative prompt: blurry
    Steps: 20, Sampler: Euler, CFG scale: 7.5, Seed: 0, Size: 512x512, Model hash: 1a2b3c4d5e, Model: v1-5-pruned

`fdiff.images` keeps such a text in files and reads it back.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

NEGATIVE = "Negative prompt:"
FIELD = re.compile(r'\b(\w[\w \-/]{1,60}):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
FEWEST = 3  # fields, by which their line is told from one of the prompt
OWN = "fdiff"  # the field of what only fdiff needs


class Parameters(NamedTuple):
    """A prompt, a negative one, what else is said by its name, such as "Steps", "Sampler" or "CFG scale", and what only
    fdiff reads, a JSON object.
    """

    prompt: str
    negative_prompt: str
    fields: dict[str, str]
    own: dict[str, Any] | None = None


def write(parameters: Parameters) -> str:
    """The text. Values with commas, colons, quotes or line breaks are written as JSON strings, as the web UI does."""
    lines = [parameters.prompt] if parameters.prompt else []
    if parameters.negative_prompt:
        lines.append(f"{NEGATIVE} {parameters.negative_prompt}")
    fields = [f"{name}: {_quoted(value)}" for name, value in parameters.fields.items()]
    if parameters.own is not None:
        fields.append(f"{OWN}: {_packed(parameters.own)}")
    return "\n".join([*lines, ", ".join(fields)])


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:"\n]', value) else value


def _packed(value: dict[str, Any]) -> str:
    """A JSON object in a JSON string without commas and colons, so that readers which know no quotes find no fields."""
    text = json.dumps(json.dumps(value, ensure_ascii=False), ensure_ascii=False)
    return text.replace(",", "\\u002c").replace(":", "\\u003a")


def parse(text: str) -> Parameters:
    """What `write` or the web UI wrote; of a text without a line of fields all is prompt."""
    lines = text.strip().split("\n")
    place = next((i for i in range(len(lines) - 1, -1, -1) if len(FIELD.findall(lines[i])) >= FEWEST), len(lines))
    fields = {name: _unquoted(value) for name, value in FIELD.findall(lines[place])} if place < len(lines) else {}
    said = lines[:place]
    start = next((i for i, line in enumerate(said) if line.startswith(NEGATIVE)), len(said))
    negative = "\n".join(said[start:]).removeprefix(NEGATIVE).strip()
    return Parameters("\n".join(said[:start]).strip(), negative, fields, _unpacked(fields.pop(OWN, "")))


def _unquoted(value: str) -> str:
    try:
        found = json.loads(value) if value.startswith('"') else value
    except ValueError:
        return value
    return found if isinstance(found, str) else value


def _unpacked(value: str) -> dict[str, Any] | None:
    try:
        found = json.loads(value)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
