"""The format, byte for byte, and headers that are damaged or forged."""

import json
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convert import safetensors

quick = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
arrays = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20),
    st.tuples(st.sampled_from(list(safetensors.DTYPES.values())), st.lists(st.integers(0, 4), max_size=4)),
    min_size=1,
    max_size=6,
)


def as_arrays(values):
    return {
        name: safetensors.Array(value.shape, value.dtype, lambda value=value: value) for name, value in values.items()
    }


@quick
@given(arrays, st.integers(0, 2**32 - 1))
def test_round_trip(tmp_path, shapes, seed):
    rng = np.random.default_rng(seed)
    values = {
        name: np.frombuffer(rng.bytes(int(np.prod(shape, dtype=int)) * dtype.itemsize), dtype).reshape(shape)
        for name, (dtype, shape) in shapes.items()
        if name != "__metadata__" and dtype.kind != "b"
    }
    file = tmp_path / "file.safetensors"
    safetensors.write(file, as_arrays(values))
    found = safetensors.read(file)
    assert set(found) == set(values)
    for name, value in values.items():
        array = found[name].read()
        assert (array.shape, array.dtype) == (value.shape, value.dtype)
        assert array.tobytes() == value.tobytes()


def test_files_equal_the_library_s(tmp_path):
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    values = {
        "b.weight": rng.standard_normal((3, 4)).astype(np.float32),
        "a.weight": rng.standard_normal((2, 3)).astype(np.float32),
        "é": np.arange(5, dtype=np.int64),
        "half": np.ones((3,), np.float16),
        "flag": np.array(True),
        "none": np.zeros((0, 3), np.float32),
    }
    save_file(values, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    safetensors.write(tmp_path / "ours.safetensors", as_arrays(values))
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()


def test_a_dtype_that_the_format_does_not_have(tmp_path):
    with pytest.raises(ValueError, match="x is <U1, which safetensors cannot hold"):
        safetensors.write(tmp_path / "file", as_arrays({"x": np.array("a")}))


GOOD = {
    "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
    "b": {"dtype": "F16", "shape": [3], "data_offsets": [16, 22]},
}


def forged(path, header, data=bytes(22), length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"a": {"data_offsets": [0, 12]}},
        {"a": {"data_offsets": [-16, 0]}},
        {"a": {"data_offsets": [0.0, 16]}},
        {"a": {"data_offsets": [16, 0]}},
        {"a": {"data_offsets": [0]}},
        {"a": {"shape": [2, 3]}},
        {"a": {"shape": [-2, -2]}},
        {"a": {"shape": [2**62, 4]}},
        {"a": {"shape": None}},
        {"a": {"shape": "", "data_offsets": [0, 4]}, "b": {"data_offsets": [4, 10]}},
        {"a": {"shape": [1] * 65}},
        {"a": {"shape": [2**62, 0], "data_offsets": [0, 0]}},
        {"a": {"dtype": "F33"}},
        {"a": {"dtype": []}},
        {"b": {"data_offsets": [8, 14]}},
        {"b": {"data_offsets": [20, 26]}},
    ],
)
def test_forged_headers(tmp_path, change):
    header = {name: {**entry, **change.get(name, {})} for name, entry in GOOD.items()}
    file = forged(tmp_path / "file.safetensors", header)
    with pytest.raises(ValueError, match=r"file.safetensors .*download or copy it again\.$"):
        safetensors.read(file)


def test_a_dtype_that_nobody_knows_is_named(tmp_path):
    file = forged(tmp_path / "file.safetensors", {"a": {**GOOD["a"], "dtype": "F4"}, "b": GOOD["b"]})
    with pytest.raises(ValueError, match=r"file.safetensors holds a as F4, which is not read; choose other weights"):
        safetensors.read(file)


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        (GOOD, bytes(21), None),
        (GOOD, bytes(23), None),
        (GOOD, bytes(22), 2**63),
        (GOOD, bytes(22), 5),
        (b"", b"", None),
        (b"[1]", b"", None),
        (b'{"a": 1}', b"", None),
        (b"[" * 100_000, b"", None),
        (b'{"a": "\xff"}', b"", None),
        (b"{", b"", None),
        (b"1" * 10_000, b"", None),
        (b'{"a":[' + b"{}," * 1_100_000 + b"1]}", b"", None),
    ],
)
def test_what_is_no_header(tmp_path, header, data, length):
    file = forged(tmp_path / "file.safetensors", header, data, length)
    with pytest.raises(ValueError, match=r"file.safetensors .*download or copy it again\.$"):
        safetensors.read(file)
    (tmp_path / "short").write_bytes(b"1234")
    with pytest.raises(ValueError, match="cut short"):
        safetensors.read(tmp_path / "short")


def test_any_changed_byte_ends_in_a_sentence_or_in_numbers(tmp_path):
    whole = forged(tmp_path / "file.safetensors", GOOD).read_bytes()
    rng = random.Random(0)
    for _ in range(300):
        data = bytearray(whole)
        data[rng.randrange(len(data) - 22)] = rng.randrange(256)
        (tmp_path / "file.safetensors").write_bytes(data)
        try:
            for tensor in safetensors.read(tmp_path / "file.safetensors").values():
                tensor.read()
        except ValueError as error:
            assert str(error).endswith("download or copy it again.")


def test_a_file_that_shrinks_after_its_header_was_read(tmp_path):
    file = forged(tmp_path / "file.safetensors", GOOD)
    found = safetensors.read(file)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is cut short"):
        found["b"].read()


@pytest.mark.parity
@pytest.mark.parametrize(
    "dtype",
    ["float32", "float16", "bfloat16", "int64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"],
)
def test_against_torch(tmp_path, dtype):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    values = {f"{i}.weight": torch.randn(3, i + 1, 2).mul(9).to(getattr(torch, dtype)) for i in range(12)}
    save_file(values, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    found = safetensors.read(tmp_path / "theirs.safetensors")
    safetensors.write(
        tmp_path / "ours.safetensors",
        {name: safetensors.Array(tensor.shape, tensor.dtype, tensor.read) for name, tensor in found.items()},
    )
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()
    for name, tensor in load_file(tmp_path / "ours.safetensors").items():
        assert torch.equal(tensor.view(torch.uint8), values[name].view(torch.uint8))
        np.testing.assert_array_equal(found[name].read().astype(np.float64), values[name].double())
