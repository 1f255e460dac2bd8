"""What the files of adapters hold: tensors by name, or, in a pickle, dicts of them; and texts beside them."""

from pathlib import Path
from typing import Any

from convert import files, pickles, safetensors, weights


def read(file: Path) -> Any:
    """A `Tensor` for each name, or what torch saved in a .bin or .pt file; for errors see `weights.tensors`."""
    with files.reading(file), open(file, "rb") as stream:
        start = stream.read(9)
    if file.suffix == ".safetensors" or start[8:] == b"{" or not start.startswith((b"PK\x03\x04", b"\x80")):
        return weights.tensors(file)
    return pickles.load(file)


def metadata(file: Path) -> dict[str, str]:
    """The texts in the header of a safetensors file, none for another. ValueError where the header is damaged."""
    return safetensors.metadata(file) if file.suffix == ".safetensors" else {}
