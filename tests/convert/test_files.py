"""Saves that appear whole or not at all."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convert.files import UNFINISHED, check_whole, reading, replacing, staged
from tests.logs import logged


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def write(folder, *files):
    for file in files:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(file)


def test_a_new_folder_appears_at_the_end(tmp_path):
    folder = tmp_path / "a" / "b"
    with staged(folder) as temporary:
        write(temporary, "config.json", "unet/model.safetensors")
        assert not folder.exists()
    assert names(folder) == ["config.json", "unet/model.safetensors"]
    assert names(tmp_path) == ["a/b/config.json", "a/b/unet/model.safetensors"]


def test_other_files_stay_and_replaced_weights_go(tmp_path):
    old = ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors", "m.safetensors.index.json"]
    keep = ["README.md", "m.fp16.safetensors", "m.safetensors.index.fp16.json", "m.bin", "vae/m.safetensors"]
    write(tmp_path, *old, *keep)
    with staged(tmp_path) as temporary:
        write(temporary, "m.safetensors")
    assert names(tmp_path) == sorted([*keep, "m.safetensors"])
    with staged(tmp_path) as temporary:
        write(temporary, "m.fp16-00001-of-00001.safetensors", "m.safetensors.index.fp16.json")
    assert "m.fp16.safetensors" not in names(tmp_path) and "m.safetensors" in names(tmp_path)


def test_nothing_stays_of_a_save_that_fails(tmp_path):
    write(tmp_path, "m.safetensors")
    for error in (ValueError, KeyboardInterrupt):
        for folder in (tmp_path / "new", tmp_path):
            with pytest.raises(error), staged(folder) as temporary:
                write(temporary, "m.safetensors", "config.json")
                raise error
    refused = pytest.raises(OSError, match=r"new was not saved \(No such file or directory\); make room")
    with refused, staged(tmp_path / "new") as outer, staged(outer / "inner") as temporary:
        (temporary / "a" / "b").write_text("in a folder that is not there")
    with pytest.raises(ValueError), replacing(tmp_path / "file") as part:
        part.write_text("half")
        raise ValueError
    assert names(tmp_path) == ["m.safetensors"] and len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_exists_is_written_from_inside(tmp_path):
    """As it may be a disk of its own, or the only place where this user may write."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    with staged(folder) as temporary:
        write(temporary, "config.json")
        assert temporary.parent == folder
        assert list(tmp_path.iterdir()) == [folder]
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_a_place_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"folder was not saved \(.*\); make"), staged(tmp_path / "file" / "folder"):
        pass
    with pytest.raises(OSError, match=r"file was not saved \(.*\); make"), staged(tmp_path / "file") as temporary:
        write(temporary, "config.json")
    with pytest.raises(OSError, match=r"file/x was not saved"), replacing(tmp_path / "file" / "x"):
        pass


def test_replacing(tmp_path):
    for text in ("one", "two"):
        with replacing(tmp_path / "deep" / "file.png") as part:
            assert part.suffix == ".png"
            part.write_text(text)
        assert (tmp_path / "deep" / "file.png").read_text() == text
    assert names(tmp_path) == ["deep/file.png"]


def kills(place, every):
    """What is found after each kill, see `tests.convert.kills`."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.convert.kills", str(place), str(every)],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("every", "least"), [pytest.param(16, 12, id="some"), pytest.param(1, 200, id="all", marks=pytest.mark.kills)]
)
def test_a_killed_save_is_whole_or_refuses_to_load(tmp_path, every, least):
    """And the next one is whole, keeps nothing of it and says what there was."""
    found = kills(tmp_path, every)
    assert len(found) >= least
    for one in found:
        refused = isinstance(one["seen"], str) and ("save" in one["seen"] or one["before"] == "nothing")
        assert one["seen"] in ([1.0], [2.0]) or refused, one
        assert one["again"] == [3.0] and one["left again"] == [], one
        assert all(one["told"]) and bool(one["told"]) == bool(one["left"]), one
    outcomes = [one["seen"] if isinstance(one["seen"], list) else "refused" for one in found]
    print({str(kind): outcomes.count(kind) for kind in ([1.0], [2.0], "refused")})


def test_files_of_a_save_that_was_cut_off(tmp_path):
    """Those of the list refuse to be read; the next save removes what it does not replace."""
    write(tmp_path, "m.safetensors", "config.json", "notes.txt")
    (tmp_path / UNFINISHED).write_text("m.safetensors\nconfig.json\n")
    with pytest.raises(ValueError, match=r"config.json may not be of the same save as the files beside it, .*; save"):
        check_whole(tmp_path / "config.json")
    check_whole(tmp_path / "notes.txt")
    check_whole(tmp_path / "notes.txt" / "x")
    told = logged(r"held files of a save that was cut off, which are removed: config.json$")
    with told, staged(tmp_path) as temporary:
        write(temporary, "m.safetensors")
    assert names(tmp_path) == ["m.safetensors", "notes.txt"]


def test_what_a_killed_save_left_is_cleared_but_not_what_a_running_one_writes(tmp_path):
    for name in ("a.png", "model"):
        left = tmp_path / f".{name}.0123abcd.tmp"
        write(left.parent, f"{left.name}/half")
        with replacing(tmp_path / "b.png") as part:
            part.write_text("")
        assert left.is_dir(), "of another name"
        saved = replacing(tmp_path / name) if name == "a.png" else staged(tmp_path / name)
        with logged(rf"{left.name} was left by a save that was cut off"), saved as part:
            part.write_text("") if name == "a.png" else write(part, "x")
        assert not left.exists()
    with staged(tmp_path / "c") as first:
        write(first, "x")
        with staged(tmp_path / "c") as second:
            write(second, "y")
        assert first.is_dir()
    assert names(tmp_path / "c") == ["x", "y"]


@pytest.mark.parametrize("save", [staged, replacing])
def test_an_empty_name(tmp_path, monkeypatch, save):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"to write is empty; give one"), save(""):
        pass
    assert not list(tmp_path.iterdir())


def test_every_reader_says_what_the_system_said(tmp_path, monkeypatch):
    """A disk that fails, or a file that others may not read: no number of an error, but the file and what to do."""
    from convert import adapters, flax_weights, pickles, safetensors, weights
    from fdiff import hub
    from fdiff.tokenizers import CLIPTokenizer

    header = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    safe = tmp_path / "x.safetensors"
    safe.write_bytes(len(header).to_bytes(8, "little") + header + b"a")
    tensor = weights.tensors(safe)["a"]
    for name in ("x.pt", "x.msgpack", "config.json", "x.safetensors.index.json", "vocab.json", "merges.txt"):
        (tmp_path / name).write_text("{}")
    calls = {
        "x.safetensors": [weights.tensors, safetensors.read, safetensors.metadata, adapters.read, adapters.metadata,
                          lambda _: tensor.read()],
        "x.pt": [weights.tensors, pickles.load, adapters.read],
        "x.msgpack": [flax_weights.tensors],
        "config.json": [hub.read_json],
        "x.safetensors.index.json": [weights.tensors, weights.shards],
        "vocab.json": [lambda file: CLIPTokenizer.from_folder(file.parent)],
        "merges.txt": [lambda file: CLIPTokenizer.from_folder(file.parent)],
    }  # fmt: skip
    real = io.open

    for name, readers in calls.items():

        def fail(file, *given, name=name, **options):
            if os.fspath(file).endswith(name):
                raise PermissionError(13, "Permission denied", str(file))
            return real(file, *given, **options)

        with monkeypatch.context() as patched:
            patched.setattr("builtins.open", fail)
            patched.setattr("io.open", fail)
            patched.setattr(np, "fromfile", lambda file, *_, **__: fail(file))
            for read in readers:
                with pytest.raises(PermissionError, match=rf"{name} cannot be read \(Permission denied\); check .*\.$"):
                    read(tmp_path / name)


def test_errors_of_the_system_become_sentences(tmp_path):
    words = r"cannot be read \(Is a directory\); check that it is a file, and that you may read it\.$"
    with pytest.raises(IsADirectoryError, match=words), reading(tmp_path):
        tmp_path.read_bytes()
    with pytest.raises(FileNotFoundError, match=r"^one sentence\.$"), reading(tmp_path):
        raise FileNotFoundError("one sentence.")
