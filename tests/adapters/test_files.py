"""Files that are not there, or not what they are called: one sentence from every loader."""

import re

import pytest

from fdiff.adapters import ip_adapter, lora, textual_inversion
from tests.adapters import tiny

SHAPES = {name: model.shapes() for name, model in tiny.models().items()}
LOADERS = {
    "lora": lambda file: lora.load(file, SHAPES),
    "textual_inversion": textual_inversion.load,
    "ip_adapter": lambda file: ip_adapter.load(file, SHAPES["unet"]),
}
CONTENTS = {
    b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\n": "is a pointer of Git LFS.*run `git lfs pull`",
    b"": "is no safetensors file|is neither a safetensors file nor one of torch",
    bytes(200): "has a damaged header|is neither a safetensors file nor one of torch",
    b"\x12\0\0\0\0\0\0\0" + b'{"__metadata__":1}': "has a damaged header|holds no|is no|is neither",
}


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
def test_damaged_files_are_named(tmp_path, load):
    for name in ("x.safetensors", "x.bin"):
        file = tmp_path / name
        for content, message in CONTENTS.items():
            file.write_bytes(content)
            with pytest.raises(ValueError, match=f"{re.escape(str(file))} ({message})"):
                load(file)


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
def test_a_missing_file_is_no_repository(load):
    for name in ("nope.safetensors", "nope.bin", "nope.pt", "folder/nope.ckpt"):
        with pytest.raises(FileNotFoundError, match=f"^{name} is not there; check its name.$"):
            load(name)
