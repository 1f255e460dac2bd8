"""Saves that appear whole or not at all."""

import pytest

from convert.files import replacing, staged


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
