"""torch's files, read without torch; and files that are made to do harm."""

import collections
import io
import os
import pickle
import random
import struct
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest

from convert import pickle_names, pickles, weights


def write_zip(path: Path, pickled: bytes, storages: dict[str, bytes] | None = None, **options) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, data in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", data)
    return path


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@pytest.mark.parametrize("name", ["state_dict.pt", "legacy.pt", "checkpoint.ckpt"])
def test_every_tensor_of_torch(reference, name):
    found = pickles.tensors(reference / "pickles" / name)
    with np.load(reference / "pickles" / "expected.npz") as expected:
        assert set(found) == set(expected.files)
        for key in expected.files:
            array = found[key].read()
            assert found[key].shape == array.shape == expected[key].shape[:-1]
            assert array.dtype.name == key or key not in pickle_names.DTYPES
            assert np.ascontiguousarray(array).tobytes() == expected[key].tobytes(), key


def test_containers(reference):
    found = pickles.load(reference / "pickles" / "checkpoint.ckpt")
    assert found["epoch"] == 3 and found["notes"] == [1, (2.5, None), {4}, b"xy", 2**70]


@pytest.mark.parametrize(
    ("function", "args", "name"),
    [
        (os.system, ("touch harm",), "posix.system"),
        (eval, ("open('harm', 'w')",), "builtins.eval"),
        (getattr, (1, "real"), "builtins.getattr"),
        (collections.Counter, (), "collections.Counter"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_any_other_name_is_refused_and_nothing_runs(tmp_path, monkeypatch, function, args, name, protocol):
    monkeypatch.chdir(tmp_path)
    harm = {"weight": Call(function, *args)}
    file = write_zip(tmp_path / "harm.pt", pickle.dumps(harm, protocol))
    bare = tmp_path / "bare.pt"
    bare.write_bytes(pickle.dumps(harm, protocol))
    if protocol < 3:
        name = name.replace("builtins", "__builtin__")
    with pytest.raises(ValueError, match=rf"harm.pt asks for {name}, and .* safetensors\.$"):
        pickles.tensors(file)
    with pytest.raises(ValueError, match=rf"bare.pt asks for {name}, and"):
        pickles.tensors(bare)
    assert not (tmp_path / "harm").exists()


def test_opcodes_that_no_checkpoint_needs_are_refused(tmp_path):
    for pickled, words in [
        (b"\x80\x02cos\nsystem\n)\x81.", "os.system"),  # NEWOBJ
        (b"(ios\nsystem\n.", "os.system"),  # INST
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
    ]:
        with pytest.raises(ValueError, match=words):
            pickles.load(write_zip(tmp_path / "file.pt", pickled))


def test_names_of_torch_cannot_be_misused(tmp_path):
    """Attributes of what a file may name cannot be set, and a call gets only what it expects."""
    float_storage = b"ctorch\nFloatStorage\n"
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
    for pickled in [
        float_storage + b")R.",  # a type called
        rebuild + b"(K\x01K\x01K\x01K\x01tR.",  # no storage
        rebuild + b"}X\x04\x00\x00\x00callK\x01sb.",  # BUILD on a function
        b"ccollections\nOrderedDict\n(K\x01tR.",  # no pairs
        b"\x80\x02K\x01\x85" * 3 + b"a.",  # append to a tuple
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00rottR.",  # another codec
    ]:
        with pytest.raises(ValueError, match="is damaged"):
            pickles.load(write_zip(tmp_path / "file.pt", pickled))


def tensor_pickle(count=4, offset=0, size=(4,), stride=(1,), key="0", storage="FloatStorage") -> bytes:
    """A state dict of one tensor as torch pickles it, with any numbers."""
    stream = io.BytesIO()
    pickler = pickle._Pickler(stream, 2)
    pickler.write(pickle.PROTO + b"\x02" + pickle.EMPTY_DICT)
    pickler.save("weight")
    pickler.write(b"ctorch._utils\n_rebuild_tensor_v2\n(")
    pickler.write(b"(")
    pickler.save("storage")
    pickler.write(b"ctorch\n" + storage.encode() + b"\n")
    for value in (key, "cpu", count):
        pickler.save(value)
    pickler.write(b"tQ")
    for value in (offset, size, stride, False, None):
        pickler.save(value)
    pickler.write(b"tRs.")
    return stream.getvalue()


def test_forged_sizes(tmp_path):
    data = {"0": np.arange(4, dtype=np.float32).tobytes()}
    good = pickles.tensors(write_zip(tmp_path / "good.pt", tensor_pickle(), data))
    np.testing.assert_array_equal(good["weight"].read(), [0, 1, 2, 3])
    for forged in [
        {"size": (5,)},
        {"offset": 1},
        {"stride": (2,)},
        {"count": 1000, "size": (1000,)},
        {"count": 2**62, "size": (2**62,)},
        {"size": (-4,)},
        {"stride": (-1,)},
        {"offset": -1},
        {"size": (2, 2)},
        {"size": (1.5,)},
        {"key": "1"},
        {"storage": "Tensor"},
    ]:
        with pytest.raises(ValueError, match="is damaged"):
            pickles.tensors(write_zip(tmp_path / "file.pt", tensor_pickle(**forged), data))


def changed(path: Path, data: bytes, place: int, new: bytes) -> Path:
    """A file of those bytes with others at that place."""
    path.write_bytes(data[:place] + new + data[place + len(new) :])
    return path


def test_what_a_zip_says_of_its_files_is_compared(tmp_path):
    """Its directory, the header before each file and, as torch writes it, the sizes after it."""
    data = np.arange(4, dtype=np.float32).tobytes()
    plain = write_zip(tmp_path / "a.pt", tensor_pickle(), {"0": data, "1": data + data}).read_bytes()
    header = plain.index(b"PK\x03\x04", 1)
    listed = plain.index(b"PK\x01\x02")
    second = plain.index(b"PK\x01\x02", listed + 1)
    name = plain.index(b"archive/data/0")
    for place, new in [
        (header + 22, b"\x0c"),  # a smaller size in the header
        (header + 28, b"\x01"),  # an extra field, which would shift the numbers by a byte
        (name, b"archive/data/1"),  # another name in the header
        (header, b"PK\x03\x05"),
        (second + 24, b"\x0c"),  # another size in the directory
        (second + 42, struct.pack("<I", header + 4)),  # another place
        (second + 46, b"archive/data/1"),  # two of one name
        (len(plain) - 12, b"\x01"),  # another number of files
    ]:
        with pytest.raises(ValueError, match="is damaged"):
            pickles.load(changed(tmp_path / "b.pt", plain, place, new))
    with pytest.raises(ValueError, match="is damaged"):
        pickles.load(changed(tmp_path / "c.pt", plain, len(plain), b"more"))
    with pytest.raises(ValueError, match="is damaged"):
        pickles.load(write_zip(tmp_path / "d.pt", tensor_pickle(count=3, size=(3,)), {"0": data}))


def test_what_torch_writes_after_each_file_is_compared(reference, tmp_path):
    whole = (reference / "pickles" / "state_dict.pt").read_bytes()
    place = whole.index(b"PK\x07\x08")
    with pytest.raises(ValueError, match="is damaged"):
        pickles.load(changed(tmp_path / "a.pt", whole, place + 8, b"\x01"))


def test_counts_of_legacy_storages_are_compared(reference, tmp_path):
    """Each storage begins with the number of its elements."""
    whole = (reference / "pickles" / "legacy.pt").read_bytes()
    first = min(tensor.offset for tensor in pickles.tensors(reference / "pickles" / "legacy.pt").values())
    count = int.from_bytes(whole[first - 8 : first], "little")
    with pytest.raises(ValueError, match="is damaged"):
        pickles.load(changed(tmp_path / "a.pt", whole, first - 8, bytes([count + 1])))


def test_strides_of_zero_repeat_numbers_as_far_as_the_file_explains(tmp_path):
    data = {"0": np.arange(4, dtype=np.float32).tobytes()}
    found = pickles.tensors(write_zip(tmp_path / "a.pt", tensor_pickle(size=(3, 4), stride=(0, 1)), data))
    np.testing.assert_array_equal(found["weight"].read(), np.tile(np.arange(4), (3, 1)))
    for size, stride in [((10**6, 4), (0, 1)), ((4, 4, 4, 4, 4, 4, 4, 4, 4, 4), (0,) * 10), ((1,) * 65, (1,) * 65)]:
        with pytest.raises(ValueError, match="is damaged"):
            pickles.tensors(write_zip(tmp_path / "b.pt", tensor_pickle(size=size, stride=stride), data))


def test_files_that_torch_did_not_write(tmp_path):
    with pytest.raises(ValueError, match="is compressed"):
        pickles.load(write_zip(tmp_path / "a.pt", b"}.", compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match="holds no tensors by name; save a state dict"):
        pickles.tensors(write_zip(tmp_path / "b.pt", b"]."))
    with zipfile.ZipFile(tmp_path / "c.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match="is a zip file that torch did not write"):
        pickles.load(tmp_path / "c.pt")
    (tmp_path / "d.pt").write_bytes(pickle.dumps(1) + pickle.dumps(2) + pickle.dumps(3))
    with pytest.raises(ValueError, match="a pickle that torch did not write"):
        pickles.load(tmp_path / "d.pt")


@pytest.mark.parametrize("name", ["state_dict.pt", "legacy.pt"])
def test_damaged_files_end_in_a_sentence(reference, tmp_path, name):
    """Cut short or with changed bytes: an error of ours, or numbers, but no other exception."""
    whole = (reference / "pickles" / name).read_bytes()
    file = tmp_path / "damaged.pt"
    rng = random.Random(0)
    for i in range(300):
        data = bytearray(whole)
        if i % 3:
            for _ in range(rng.randint(1, 8)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        else:
            del data[rng.randrange(len(data)) :]
        file.write_bytes(data)
        try:
            for tensor in pickles.tensors(file).values():
                tensor.read()
        except ValueError as error:
            assert str(error).startswith(str(file)) and str(error).endswith(".")


def test_a_deep_pickle_does_not_exhaust_the_stack(tmp_path):
    nested = b"\x80\x02" + b")" + b"\x85" * 200_000 + b"."
    found = pickles.load(write_zip(tmp_path / "deep.pt", nested))
    assert isinstance(found, tuple)
    assert len(pickles.load(write_zip(tmp_path / "key.pt", b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s."))) == 1


def of_module(module: str, name: str = "ModelCheckpoint") -> type:
    """A class that pickles under another module's name."""
    return type(name, (), {"__module__": module})


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_what_training_leaves_beside_the_weights(tmp_path, monkeypatch, protocol):
    """Callbacks, numbers of NumPy and containers of all kinds: stand-ins, none of which is called."""
    callback = of_module("pytorch_lightning.callbacks.model_checkpoint")
    module = types.ModuleType(callback.__module__)
    module.ModelCheckpoint = callback
    monkeypatch.setitem(sys.modules, "pytorch_lightning", types.ModuleType("pytorch_lightning"))
    monkeypatch.setitem(sys.modules, "pytorch_lightning.callbacks", types.ModuleType("pytorch_lightning.callbacks"))
    monkeypatch.setitem(sys.modules, callback.__module__, module)
    made = callback()
    made.best = 1.5
    beside = {
        "callbacks": {callback: {"best": np.float64(0.3), "made": made}}, "scores": np.arange(3.0),
        "state": collections.defaultdict(dict, {0: {"step": 1}}), "ids": frozenset([1, 2]), (1, ("a", 2)): 1j,
        "where": Path("x"), "range": slice(1), "epoch": 3,
    }  # fmt: skip
    found = pickles.load(write_zip(tmp_path / "beside.ckpt", pickle.dumps(beside, protocol)))
    assert found["epoch"] == 3 and found["state"] == {0: {"step": 1}} and len(found) == len(beside)
    assert isinstance(found["scores"], pickle_names.Inert)


@pytest.mark.parity
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_against_torch(tmp_path, protocol, zipped):
    torch = pytest.importorskip("torch")
    file = tmp_path / "file.pt"
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Linear(8, 4))
    model.half()
    model[2].weight = torch.nn.Parameter(model[2].weight.t().contiguous().t())
    torch.save(model.state_dict(), file, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    found = pickles.tensors(file)
    expected = torch.load(file, weights_only=False)
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name].read(), tensor.numpy())
    if zipped:
        kinds = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "uint16")
        values = {kind: torch.arange(256, dtype=torch.uint8).view(getattr(torch, kind)) for kind in kinds}
        values["shared"] = torch.zeros(1).expand(5, 3)
        torch.save(values, file, pickle_protocol=protocol)
        for name, tensor in pickles.tensors(file).items():
            assert tensor.dtype.name == str(values[name].dtype).removeprefix("torch.")
            np.testing.assert_array_equal(tensor.read().astype(np.float32), values[name].float())
    torch.save(model, file, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"asks for torch.nn.modules.container.Sequential"):
        pickles.tensors(file)


def test_real_weights_of_torch(shared_data):
    """A trained model of 746,892 parameters, whose file is a torch zip under another name."""
    found = weights.tensors(shared_data / "weights" / "edm_qm9_nf128_l5" / "generative_model_ema.npy")
    arrays = {name: tensor.read() for name, tensor in found.items()}
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert sum(array.size for name, array in arrays.items() if "gamma" not in name and "buffer" not in name) == 746_892
