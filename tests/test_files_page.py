"""docs/files.md names what convert refuses and reads, all of it."""

import re
from pathlib import Path

from convert import lora, lora_names, peft

PAGE = " ".join((Path(__file__).parents[1] / "docs" / "files.md").read_text().split())


def test_every_method_that_is_refused_is_named():
    for pattern, name in lora_names.REFUSED.items():
        kinds = re.search(r"\(([\w|]+)\)_", pattern)[1].split("|") if "\\1" in name else [name]
        for kind in kinds:
            assert re.search(rf"\b{re.escape(kind)}(?!\w)", PAGE), kind
    for name, _ in peft.RELATIVE.values():
        assert re.search(rf"\b{name}\b", PAGE), name
    for name in peft.VARIANTS.values():
        assert name == "KaSA" or name in PAGE, name


def test_every_dialect_is_named():
    dialects = re.findall(r"^(\w+)  +\S", lora.__doc__, re.MULTILINE)
    assert len(dialects) == 7 and all(f"| {dialect} |" in PAGE for dialect in dialects)
    for prefix in ("lora_te_", "lora_te1_", "lora_te2_", "lycoris_", "text_encoders.clip_l.transformer"):
        assert prefix in PAGE and any(known.startswith(prefix) for known in lora_names.PREFIXES), prefix
