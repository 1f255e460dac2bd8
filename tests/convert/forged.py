"""Files of a few bytes or megabytes that ask for much more time or memory, and valid ones that are large.

As a program, python -m tests.convert.forged PLACE FIRST EVERY, it loads each, or every EVERY-th, in a process of its
own and prints, as JSON, how it ended, in how many seconds, and what memory it took beside what the process had before.
"""

import itertools
import json
import os
import resource
import struct
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from convert import flax_weights, safetensors, weights
from fdiff import hub

MILLION = 1_000_000
PROTOCOL = b"\x80\x04"


def zipped(file: Path, pickled: bytes, storages: dict[str, bytes] | None = None) -> None:
    """A torch zip of that pickle."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, data in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", data)


def text(value: str) -> bytes:
    """BINUNICODE."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def tensor(size: bytes, stride: bytes, count: int = 4) -> bytes:
    """The pickle of a dict of one tensor of that pickled size and stride on a storage of so many floats."""
    number = b"J" + struct.pack("<i", count)
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number + b"tQ"
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00" + size + stride + b"\x89NtR"
    return PROTOCOL + b"}" + text("weight") + rebuild + b"s."


Made = Iterator[tuple[str, Callable[[], bytes]]]  # what it is, and what makes it


def pickles() -> Made:
    """Pickles."""
    for name, code in {"dicts": b"}", "lists": b"]", "sets": b"\x8f", "marks": b"(", "tuples": b")\x85"}.items():
        yield f"20 MB of {name}", lambda code=code: PROTOCOL + code * (20 * MILLION // len(code)) + b"."
    yield "nested lists", lambda: PROTOCOL + b"]" * 20 * MILLION + b"a" * (20 * MILLION - 1) + b"."
    encode = b"c_codecs\nencode\nq\x00" + text("a" * MILLION) + text("latin1") + b"\x86q\x010"
    yield "a text encoded 200,000 times", lambda: PROTOCOL + encode + b"h\x00h\x01R" * 200_000 + b"."
    pairs = b"(" + b"K\x01K\x02\x86" * 50_000 + b"lq\x00\x85q\x010c"
    for made in ("__builtin__\nset", "torch\nSize", "collections\nOrderedDict", "builtins\nobject"):
        calls = pairs + made.encode() + b"\nq\x020" + b"h\x02h\x01R" * 100_000
        yield f"{made.split()[1]} called 100,000 times", lambda calls=calls: PROTOCOL + calls + b"."
    yield "a text of 60 MB", lambda: PROTOCOL + b"}" + text("\U0001f600" + "a" * 60 * MILLION) + b"K\x01s."
    yield "a text that says 8 EB", lambda: PROTOCOL + b"\x8d" + struct.pack("<Q", 2**63) + b"a."
    yield "a number of 20 MB", lambda: PROTOCOL + number(20 * MILLION) + b"."
    yield "a key of 8 million bits", lambda: PROTOCOL + number(MILLION) + b"q\x000}" + b"h\x00K\x01s" * 100_000 + b"."
    many = b"(" + b"K\x02" * 100_000 + b"t"
    yield "a tensor of 100,000 axes", lambda: tensor(many, many)
    million, zeros = b"J" + struct.pack("<i", MILLION), b"K\x00K\x00\x86"
    yield "a tensor of 10^12 zeros", lambda: tensor(million + million + b"\x86", zeros)
    yield "a tensor of 10^24 zeros", lambda: tensor(b"(" + million * 4 + b"t", b"(" + b"K\x00" * 4 + b"t")


def number(size: int) -> bytes:
    """LONG4: a whole number of so many bytes."""
    return b"\x8b" + struct.pack("<i", size) + b"\x01" * size


def headers() -> Made:
    """JSON."""
    for name, item in {"dicts": b"{}", "lists": b"[]", "floats": b"1.5", "texts": b'"ab"', "ones": b'{"":0}'}.items():
        yield f"JSON of 80 MB of {name}", lambda item=item: (
            b'{"a":[' + b",".join([item] * (80 * MILLION // (len(item) + 1))) + b"]}"
        )
    yield "JSON nested", lambda: b'{"a":' * 5 * MILLION + b"1" + b"}" * 5 * MILLION
    yield "JSON of one wide sign", lambda: (
        '{"__metadata__":{"a":"\U0001f600'.encode() + b"a" * 90 * MILLION + b'"}}'
    )
    sizes = f"{2**62}," * MILLION + "1"
    axes = f'{{"a":{{"dtype":"F32","shape":[{sizes}],"data_offsets":[0,0]}}}}'.encode()
    yield "JSON of a million axes", lambda: axes
    layer = '"l.{}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'.format
    yield "a million layers", lambda: b"{" + ",".join(map(layer, range(MILLION))).encode() + b"}"


def trees() -> Made:
    """Flax's msgpack."""
    count = struct.pack(">I", 5 * MILLION)
    key = lambda i: b"\xa4" + struct.pack(">I", 0x20202020 + (i & 0x3F3F3F)) + b"\x80"  # noqa: E731
    yield "msgpack of empty maps", lambda: b"\xdf" + count + b"".join(map(key, range(5 * MILLION)))
    yield "msgpack of lists", lambda: b"\x81\xa1a\xdd" + struct.pack(">I", 20 * MILLION) + b"\x90" * 20 * MILLION
    yield "msgpack of 4 GB of text", lambda: b"\x81\xdb\xff\xff\xff\xffa"
    yield "msgpack nested", lambda: b"\x81\xa1a" * MILLION + b"\x80"
    array = b"\x93\x92" + 2 * (b"\xcf" + struct.pack(">Q", 2**32)) + b"\xa7float32\xc4\x00"
    yield "msgpack of 2^64 numbers", lambda: b"\x81\xa1a\xc7" + bytes([len(array)]) + b"\x01" + array


def legacy(file: Path, pickled: bytes) -> None:
    """A file of torch before 1.6 with that pickle, and without storages."""
    magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03."
    file.write_bytes(magic + b"\x80\x02}X\x0d\x00\x00\x00little_endian\x88s." + pickled)


def crowd(file: Path) -> None:
    """A zip of 300,000 files."""
    with zipfile.ZipFile(file, "w") as archive:
        for i in range(300_000):
            archive.writestr(f"a/data/{i}", b"")


def valid(file: Path, names: int, shape: tuple[int, ...]) -> None:
    """A right file of so many tensors of zeros."""
    zeros = np.zeros(shape, np.float32)
    one = safetensors.Array(shape, zeros.dtype, lambda: zeros)
    safetensors.write(file, {f"layers.{i}.weight": one for i in range(names)})


def files() -> Iterator[tuple[str, str, Callable[[Path], object]]]:
    """(what it is, the name of the file, what writes it) of every forged or large file."""
    yield "valid: 400 MB", "large.safetensors", lambda file: valid(file, 1, (100, MILLION))
    yield "valid: 100,000 layers", "layers.safetensors", lambda file: valid(file, 100_000, (2, 3))
    yield "a zip of 300,000 files", "many.pt", crowd
    for name, make in trees():
        yield name, "x.msgpack", lambda file, make=make: file.write_bytes(make())
    for name, make in headers():
        yield name, "x.safetensors", lambda file, make=make: headed(file, make())
        yield f"{name}, an index", "x.safetensors.index.json", lambda file, make=make: (
            file.write_bytes(b'{"weight_map":' + make() + b"}")
        )
        yield f"{name}, a config", "config.json", lambda file, make=make: file.write_bytes(make())
    for name, make in pickles():
        yield f"{name}, zip", "zip.pt", lambda file, make=make: zipped(file, make(), {"0": bytes(16)})
        yield f"{name}, legacy", "legacy.pt", lambda file, make=make: legacy(file, make())


def headed(file: Path, header: bytes) -> None:
    """A safetensors file of that header, without tensors."""
    file.write_bytes(len(header).to_bytes(8, "little") + header)


def load(file: Path) -> str:
    """How it ends: "loaded", or the sentence."""
    try:
        if file.name == "config.json":
            hub.read_json(file)
        else:
            found = flax_weights.tensors(file) if file.suffix == ".msgpack" else weights.tensors(file)
            for one in found.values():
                one.read()
    except (ValueError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return "loaded"


def memory(kind: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind))
    return int(line.split()[1]) * 1024


def measured(file: Path, seconds: int) -> dict[str, Any]:
    """How loading ends in a process of its own, which is stopped after so many seconds of its own time."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
        before, start = memory("VmRSS"), time.process_time()
        try:
            ended = load(file)
        except BaseException as error:
            ended = f"not answered: {type(error).__name__}: {error}"
        spent, most = time.process_time() - start, memory("VmHWM")
        os.write(write, json.dumps({"ended": ended, "seconds": spent, "memory": most - before}).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        told = stream.read()
    os.waitpid(child, 0)
    return json.loads(told) if told else {"ended": "not answered: stopped", "seconds": seconds, "memory": 0}


def main(place: Path, first: int, every: int) -> None:
    """Print a line for each file, or for every EVERY-th from the first on."""
    for name, filename, write in itertools.islice(files(), first, None, every):
        write(place / filename)
        size = (place / filename).stat().st_size
        print(json.dumps({"name": name, "size": size, **measured(place / filename, 60)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
