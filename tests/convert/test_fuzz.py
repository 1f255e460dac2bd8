"""Every file at random is loaded rightly or refused in one sentence, with little time and memory."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convert import weights
from tests.convert import fuzz


@pytest.mark.parametrize(
    ("first", "count"),
    [pytest.param(0, 1000, id="some"), pytest.param(1000, 10_000, id="many", marks=pytest.mark.fuzz)],
)
def test_every_file_is_loaded_rightly_or_refused_in_a_sentence(tmp_path, first, count):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.convert.fuzz", str(tmp_path), str(first), str(count)],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert [json.loads(line) for line in done.stdout.splitlines()] == []


@pytest.mark.filterwarnings("ignore:overflow")  # numbers of 64 bits that are none of 32
def test_the_inputs_are_of_every_kind(tmp_path):
    """Right ones and damaged ones of each format, and some of the damaged ones load, so that their numbers are seen."""
    seen = set()
    for seed in range(400):
        name, write, read = fuzz.FORMATS[seed % len(fuzz.FORMATS)]
        rng = random.Random(seed)
        write(rng, tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(fuzz.damaged(rng, name, whole))
        try:
            read(tmp_path / name)
        except (ValueError, OSError):
            seen.add((name, "refused"))
        else:
            seen.add((name, "loaded"))
    formats = [name for name, *_ in fuzz.FORMATS]
    assert seen >= {(name, "refused") for name in formats}
    assert seen >= {(name, "loaded") for name in formats if name != "x.gguf"}


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_that_torch_loads_too_are_the_same(tmp_path):
    torch = pytest.importorskip("torch")
    both = 0
    for seed in range(3000):
        rng = random.Random(seed)
        name, write = (("x.pt", fuzz.as_zip), ("x.bin", fuzz.as_legacy))[seed % 2]
        file = tmp_path / name
        write(rng, file)
        if seed % 3:
            file.write_bytes(fuzz.damaged(rng, name, file.read_bytes()))
        try:
            ours = {key: tensor.read() for key, tensor in weights.tensors(file).items()}
            theirs = torch.load(file, weights_only=True)  # which knows pickles of protocol 2 alone
        except Exception:
            continue
        both += 1
        theirs = {key: value for key, value in theirs.items() if isinstance(value, torch.Tensor)}
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            bits = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
            assert ours[key].shape == value.shape and np.ascontiguousarray(ours[key]).tobytes() == bits, (seed, key)
    assert both > 500
