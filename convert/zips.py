"""Where the files of an uncompressed zip lie, as torch writes it.

It is read here, not by zipfile, so that what each file says of itself is compared with what the directory says of it,
and so that the memory is that of the directory: nothing of a forged one is believed.
"""

import os
import struct
from collections.abc import Iterator
from typing import IO, NamedTuple

END, END_64, LOCATOR = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
LONGEST_COMMENT = 2**16 - 1
MOST = 250_000  # files in one zip
FULL = 2**32 - 1  # where a number of 32 bits stands for one of 64 elsewhere
DESCRIBED, UTF_8, ENCRYPTED = 0x8, 0x800, 0x1  # flags: sizes follow the file, its name is UTF-8, it is encrypted


class Compressed(ValueError):
    """A zip whose files do not lie in it as they are."""


class Entry(NamedTuple):
    """Where a file lies, in bytes from the start of the zip."""

    offset: int
    size: int


def entries(stream: IO[bytes]) -> dict[str, Entry]:
    """Every file of a zip by its name. ValueError where the zip is damaged, `Compressed` where it is compressed."""
    start, size, count = _directory(stream)
    stream.seek(start)
    directory = stream.read(size)
    listed, place = [], 0
    for _ in range(count):
        name, flags, length, offset, place = _listed(directory, place)
        listed.append((offset, name, flags, length))
    if place != size:
        raise ValueError("the directory is longer than its entries")
    found: dict[bytes, Entry] = {}
    end = 0
    for offset, name, flags, length in sorted(listed):
        if offset != end or name in found:
            raise ValueError("files that overlap, or are not in the directory")
        data, end = _file(stream, offset, name, flags, length)
        found[name] = Entry(data, length)
    if end != start:
        raise ValueError("something between the files and the directory")
    return {name.decode("utf-8", "surrogateescape"): entry for name, entry in found.items()}


def _directory(stream: IO[bytes]) -> tuple[int, int, int]:
    """Where the directory is, its size, and how many files it lists."""
    whole = stream.seek(0, os.SEEK_END)
    tail_start = max(0, whole - LONGEST_COMMENT - 22)
    stream.seek(tail_start)
    tail = stream.read()
    at = tail.rfind(END)
    if at < 0 or len(tail) < at + 22:
        raise ValueError("no end of a zip")
    count, size, start, comment = struct.unpack_from("<10xHIIH", tail, at)
    end = tail_start + at
    if at + 22 + comment != len(tail):
        raise ValueError("something after the end of the zip")
    if tail[max(at - 20, 0) : at].startswith(LOCATOR):  # the same numbers in 64 bits
        (end,) = struct.unpack_from("<8xQ", tail, at - 20)
        if end + 56 > tail_start + at - 20:
            raise ValueError("no end of a zip of 64 bits")
        stream.seek(end)
        sign, count, size, start = struct.unpack("<4s28xQQQ", stream.read(56))
        if sign != END_64:
            raise ValueError("no end of a zip of 64 bits")
    if start + size != end or count > MOST:
        raise ValueError("a directory of another place or size than it says")
    return start, size, count


def _listed(directory: bytes, place: int) -> tuple[bytes, int, int, int, int]:
    """(name, flags, bytes, offset, where the next one begins) of the entry at `place` in the directory."""
    sign, flags, method, stored, length, named, extra, comment, offset = struct.unpack_from(
        "<4s4xHH8xIIHHH8xI", directory, place
    )
    at = place + 46
    name, more = directory[at : at + named], directory[at + named : at + named + extra]
    end = at + named + extra + comment
    if sign != b"PK\x01\x02" or end > len(directory):
        raise ValueError("no entry of a directory")
    wide = _wide(more)
    length, stored, offset = (next(wide) if number == FULL else number for number in (length, stored, offset))
    if method or flags & ENCRYPTED:
        raise Compressed
    if length != stored:
        raise ValueError("a file of two sizes")
    return name, flags, length, offset, end


def _wide(extra: bytes) -> Iterator[int]:
    """The numbers of 64 bits in the extra field of an entry, in order."""
    place = 0
    while place + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, place)
        if kind == 1:
            yield from (number for (number,) in struct.iter_unpack("<Q", extra[place + 4 : place + 4 + size // 8 * 8]))
        place += 4 + size
    raise ValueError("a number of 64 bits is missing")


def _file(stream: IO[bytes], offset: int, name: bytes, flags: int, length: int) -> tuple[int, int]:
    """Where a file's bytes lie and where what belongs to it ends, after its own header agrees with the directory."""
    stream.seek(offset)
    head = stream.read(30)
    sign, own, method, stored, size, named, extra = struct.unpack("<4s2xHH8xIIHH", head)
    if sign != b"PK\x03\x04" or method or own & DESCRIBED != flags & DESCRIBED or stream.read(named) != name:
        raise ValueError("a file that is not what the directory says")
    data = offset + 30 + named + extra
    if not flags & DESCRIBED:
        if size == stored == FULL:
            wide = _wide(stream.read(extra))
            size, stored = next(wide), next(wide)
        if size != length or stored != length:
            raise ValueError("a file of another size than the directory says")
        return data, data + length
    # Its checksum and sizes follow, in 32 bits or 64, with or without a sign before them.
    stream.seek(data + length)
    after = stream.read(24)
    signed = 4 if after.startswith(b"PK\x07\x08") else 0
    for form in ("<4xQQ", "<4xII"):
        size = signed + struct.calcsize(form)
        if len(after) >= size and struct.unpack_from(form, after, signed) == (length, length):
            return data, data + length + size
    raise ValueError("a file of another size than the directory says")
