"""Files at random, right ones and damaged ones of every format, and whether each is answered as it should be.

A right file gives what was put into it; a damaged one gives tensors that lie in it, or one sentence. As a program,
python -m tests.convert.fuzz PLACE FIRST COUNT looks at the inputs of those numbers, each of which is its own seed, and
prints those that are answered otherwise, as JSON. Memory is limited for the process, time for each input.
"""

import io
import json
import pickle
import random
import resource
import signal
import struct
import sys
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import serialization

from convert import flax_weights, safetensors, weights
from convert.tensors import DTYPES, EIGHT_BITS, FLOATS
from fdiff import hub
from fdiff.pipelines import components

Arrays = dict[str, np.ndarray]

MEMORY = 300_000_000  # bytes above what the process has at first
SECONDS = 10.0  # of the process's own time, for one input
NUMBERS = (0, 1, 2, 7, 255, 2**16, 2**31 - 1, 2**31, 2**32, 2**62, 2**63, 2**64, -1, 10**400)
CODES = (*safetensors.DTYPES, "F4", "F6_E2M3", "", "f32", "F32 ", "\n", "é")
STORAGES = {
    "float32": "FloatStorage", "float64": "DoubleStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage",
    "uint8": "ByteStorage", "int8": "CharStorage", "int16": "ShortStorage", "int32": "IntStorage",
    "int64": "LongStorage", "bool": "BoolStorage", "complex64": "ComplexFloatStorage",
}  # fmt: skip


def arrays(rng: random.Random, dtypes: Any) -> Arrays:
    """A few small arrays of any bits, but truth values of 0 and 1."""
    found = {}
    for i in range(rng.randint(1, 4)):
        dtype = np.dtype(rng.choice(list(dtypes)))
        shape = tuple(rng.randint(0, 4) for _ in range(rng.randint(0, 4)))
        size = int(np.prod(shape, dtype=int))
        bits = rng.randbytes(size * dtype.itemsize)
        array = np.frombuffer(bits, np.uint8) % 2 == 1 if dtype.kind == "b" else np.frombuffer(bits, dtype)
        found[f"{rng.choice(('layers.', 'down_', 'é'))}{i}.{rng.choice(('weight', 'bias'))}"] = array.reshape(shape)
    return found


def as_safetensors(rng: random.Random, file: Path) -> Arrays:
    weights_alone = file.stem == "y" and rng.random() < 0.8
    found = arrays(rng, (*FLOATS, *EIGHT_BITS) if weights_alone else safetensors.DTYPES.values())
    write_safetensors(file, found, {"note": "x"} if rng.random() < 0.3 else None)
    return found


def write_safetensors(file: Path, found: Arrays, texts: dict[str, str] | None = None) -> None:
    made = {name: safetensors.Array(one.shape, one.dtype, lambda one=one: one) for name, one in found.items()}
    safetensors.write(file, made, texts)


def pickled(rng: random.Random, found: Arrays, legacy: bool) -> tuple[bytes, dict[str, np.ndarray]]:
    """A state dict as torch pickles it, some of its tensors turned or windows; and its storages."""
    protocol = rng.choice((2, 2, 3, 4, 5))
    stream = io.BytesIO()
    pickler: Any = pickle._Pickler(stream, protocol)  # type: ignore[attr-defined]
    pickler.write(pickle.PROTO + bytes([protocol]) + pickle.EMPTY_DICT)
    storages = {}
    for i, (name, array) in enumerate(found.items()):
        before, turned = rng.randint(0, 3), rng.random() < 0.3
        laid = array.T if turned else array
        bits = np.ascontiguousarray(laid).reshape(-1)
        storages[str(i)] = np.concatenate([np.zeros(before, array.dtype), bits])
        step, strides = 1, []
        for size in reversed(laid.shape):
            strides.append(step)
            step *= max(size, 1)
        strides = strides if turned else strides[::-1]
        pickler.save(name)
        pickler.write(b"ctorch._utils\n_rebuild_tensor_v2\n((")
        pickler.save("storage")
        pickler.write(f"ctorch\n{STORAGES[array.dtype.name]}\n".encode())
        for value in (str(i), "cpu", len(storages[str(i)])):
            pickler.save(value)
        pickler.write(b"NtQ" if legacy else b"tQ")
        for value in (before, array.shape, tuple(strides), False, None):
            pickler.save(value)
        pickler.write(b"tRs")
    if rng.random() < 0.3:
        beside = rng.choice([1.5, [1, (2, "a")], {"a": {1, 2}}, b"x" * 300, 2**70, None])
        pickler.save("epoch")
        pickler.save(beside)
        pickler.write(b"s")
    pickler.write(b".")
    return stream.getvalue(), storages


def as_zip(rng: random.Random, file: Path) -> Arrays:
    found = arrays(rng, STORAGES)
    data, storages = pickled(rng, found, legacy=False)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", b"3\n")
        archive.writestr("archive/byteorder", b"little")
        for key, array in storages.items():
            archive.writestr(f"archive/data/{key}", array.tobytes())
    return found


def as_legacy(rng: random.Random, file: Path) -> Arrays:
    found = arrays(rng, STORAGES)
    data, storages = pickled(rng, found, legacy=True)
    heads = [pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2), pickle.dumps({"little_endian": True}, 2)]
    tail = b"".join(struct.pack("<q", len(array)) + array.tobytes() for array in storages.values())
    file.write_bytes(b"".join(heads) + data + pickle.dumps(list(storages), 2) + tail)
    return found


def as_msgpack(rng: random.Random, file: Path) -> Arrays:
    found = arrays(rng, ("float32", "float16", "int32", "uint8", "bfloat16"))
    found = {name.replace(".", "_"): array for name, array in found.items()}
    file.write_bytes(serialization.to_bytes({"block": {name: {"bias": array} for name, array in found.items()}}))
    dotted = {name: flax_weights.NUMBERED.sub(r".\1", name) for name in found}
    return {f"block.{dotted[name]}.bias": array for name, array in found.items()}


def as_gguf(rng: random.Random, file: Path) -> None:
    head = struct.pack("<4sIQQ", b"GGUF", 3, rng.randint(0, 3), rng.randint(0, 3))
    file.write_bytes(head + rng.randbytes(rng.randint(0, 200)))


def as_index(rng: random.Random, file: Path) -> Arrays:
    found = arrays(rng, ("float32", "float16"))
    places = {name: f"{file.stem}-{rng.randint(1, 2)}.safetensors" for name in found}
    for shard in set(places.values()):
        write_safetensors(file.parent / shard, {name: found[name] for name in found if places[name] == shard})
    file.write_text(json.dumps({"metadata": {"total_size": 3}, "weight_map": places}))
    return found


def as_config(rng: random.Random, file: Path) -> None:
    entries = {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPM"]}
    file.write_text(json.dumps({**entries, "mean": [0.5, 0.5], "labels": {"0": "cat"}, "flag": rng.random() < 0.5}))


def loaded(file: Path) -> Arrays:
    """Every tensor of a file, read."""
    found = flax_weights.tensors(file) if file.suffix == ".msgpack" else weights.tensors(file)
    read = {}
    for name, tensor in found.items():
        read[name] = tensor.read()
        assert (read[name].shape, read[name].dtype) == (tensor.shape, tensor.dtype)
        assert read[name].dtype in DTYPES.values()
    if file.suffix == ".safetensors":  # damaged or not: each is as the header says, whose names are said once
        data = file.read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:end])
        assert read.keys() == header.keys() - {"__metadata__"}
        for name, array in read.items():
            start, stop = header[name]["data_offsets"]
            assert array.tobytes() == data[end + start : end + stop] and list(array.shape) == header[name]["shape"]
    return read


def filled(file: Path) -> Arrays:
    """The same file as parameters of a model that has these tensors, floating point all of them."""
    tensors = weights.tensors(file)
    tree = {f"{name}.x": {"value": jax.ShapeDtypeStruct(one.shape, np.float32)} for name, one in tensors.items()}
    found = {f"{name}.x.value": one for name, one in tensors.items()}
    params = weights.fill(found, tree, file=file, dtype="float32")
    return {name.removesuffix(".x"): np.asarray(leaf["value"]) for name, leaf in params.items()}


def configured(file: Path) -> Arrays:
    """A JSON file as a config and as an index of a pipeline."""
    for read in (hub.read_json, components.read_index):
        assert isinstance(read(file), dict)
    hub.class_name(hub.read_json(file), file)
    return {}


FORMATS: list[tuple[str, Callable[[random.Random, Path], Arrays | None], Callable[[Path], Arrays]]] = [
    ("x.safetensors", as_safetensors, loaded),
    ("y.safetensors", as_safetensors, filled),
    ("x.pt", as_zip, loaded),
    ("x.bin", as_legacy, loaded),
    ("x.msgpack", as_msgpack, loaded),
    ("x.gguf", as_gguf, loaded),
    ("x.safetensors.index.json", as_index, loaded),
    ("model_index.json", as_config, configured),
]


def value(rng: random.Random, depth: int = 0) -> Any:
    """Any JSON value, an odd one more often than not."""
    kinds = [None, True, 1.5, float("nan"), "", "a\nb", "\ud800", "x" * 2000, "../x", *NUMBERS[:-1], *CODES]
    if depth > 2 or rng.random() < 0.7:
        return rng.choice(kinds)
    items = [value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    return items if rng.random() < 0.5 else {str(i): item for i, item in enumerate(items)}


def spoiled(rng: random.Random, tree: Any) -> Any:
    """A JSON value with one part of it, somewhere, replaced, left out or renamed."""
    if not isinstance(tree, dict | list) or not tree or rng.random() < 0.2:
        return value(rng)
    key: Any = rng.choice(list(tree) if isinstance(tree, dict) else range(len(tree)))
    changed: Any = dict(tree) if isinstance(tree, dict) else list(tree)
    if rng.random() < 0.15:
        del changed[key]
    elif isinstance(changed, dict) and rng.random() < 0.15:
        changed[str(value(rng, 3))] = changed.pop(key)
    else:
        changed[key] = spoiled(rng, tree[key])
    return changed


def change_bytes(rng: random.Random, data: bytes) -> bytes:
    """Some bytes set, cut off, left out, doubled or put in."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        place = rng.randrange(len(changed) + 1)
        match rng.randrange(6):
            case 0 | 1:
                changed[place : place + 1] = bytes([rng.randrange(256)])
            case 2:
                del changed[place:]
            case 3:
                del changed[place : place + rng.randint(1, 8)]
            case 4:
                changed[place:place] = changed[place : place + rng.randint(1, 64)]
            case 5:
                changed[place:place] = rng.choice((b"\x00", b"\xff" * 8, b"[" * 50, b")\x85" * 50, rng.randbytes(4)))
    return bytes(changed)


def change_numbers(rng: random.Random, data: bytes) -> bytes:
    """One number of 2, 4 or 8 bytes set to an odd one."""
    form = rng.choice(("<H", "<I", "<Q", ">H", ">I", ">Q"))
    size = struct.calcsize(form)
    place = rng.randrange(max(len(data) - size, 1))
    number = rng.choice([number for number in NUMBERS if 0 <= number < 256**size])
    return data[:place] + struct.pack(form, number) + data[place + size :]


def change_json(rng: random.Random, data: bytes) -> bytes:
    """A JSON text, or the header of a safetensors file, with one part replaced."""
    headed = not data.startswith(b"{")
    length = int.from_bytes(data[:8], "little") if headed else len(data)
    start = 8 if headed else 0
    text = json.dumps(spoiled(rng, json.loads(data[start : start + length]))).encode()
    return (len(text).to_bytes(8, "little") if headed else b"") + text + data[start + length :]


def damaged(rng: random.Random, name: str, data: bytes) -> bytes:
    """The bytes of a file, changed in one of these ways."""
    has_json = name.endswith((".json", ".safetensors"))
    return rng.choice([change_bytes, change_numbers, *[change_json] * (3 * has_json)])(rng, data)


def wrong(place: Path, seed: int) -> str | None:
    """What is wrong with the answer to that input, None if nothing is."""
    rng = random.Random(seed)
    name, write, read = FORMATS[seed % len(FORMATS)]
    file = place / name
    wanted = write(rng, file)
    right = rng.random() < 0.25
    if not right:
        file.write_bytes(damaged(rng, name, file.read_bytes()))
    try:
        found = read(file)
    except (ValueError, FileNotFoundError, OSError) as error:
        told = str(error)
        ends = told.endswith(".") or read is configured  # what stands above the files says it without a full stop
        if len(told.splitlines()) != 1 or not ends or len(told) > 4000 or "Errno" in told:
            return f"no sentence: {told!r}"
        if right and wanted is not None and not (read is filled and "instead of floating point" in told):
            return f"refused a right file: {told}"
        return None
    if right and wanted is not None and not (found.keys() == wanted.keys() and all(
        same(found[key], wanted[key], cast=read is filled) for key in wanted
    )):  # fmt: skip
        return "other numbers than were written"
    return None


def same(found: np.ndarray, wanted: np.ndarray, cast: bool) -> bool:
    """Whether these are the very numbers, or those as float32."""
    if cast:
        with np.errstate(all="ignore"):
            wanted = wanted.astype(np.float32)
    return found.shape == wanted.shape and (
        np.array_equal(found, wanted, equal_nan=True) if cast
        else np.ascontiguousarray(found).tobytes() == np.ascontiguousarray(wanted).tobytes()
    )


class Late(BaseException):
    """More time has passed than an input may take."""


def limit() -> None:
    """Limit the memory of this process to what it has and `MEMORY`."""
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + MEMORY, resource.RLIM_INFINITY))


def main(place: Path, first: int, count: int) -> None:
    """Print the numbers of the inputs that are answered wrongly, with what is wrong."""

    def stop(*_: Any) -> None:
        raise Late

    for seed in range(len(FORMATS)):
        wrong(place, seed)  # so that everything is there that stays
    limit()
    signal.signal(signal.SIGVTALRM, stop)
    for seed in range(first, first + count):
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        try:
            told = wrong(place, seed)
        except BaseException as error:
            told = "".join(traceback.format_exception(error)[-4:])
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        if told:
            print(json.dumps({"input": seed, "format": FORMATS[seed % len(FORMATS)][0], "wrong": told}), flush=True)
        for file in place.iterdir():
            file.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
