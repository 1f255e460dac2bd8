"""Sounds in files: what is written comes back, whatever is read is scaled to [-1, 1], and bad files are told."""

import struct

import numpy as np
import pytest
from scipy.io import wavfile

from fdiff import audio

RANDOM = np.random.default_rng(0)
WHOLE = RANDOM.integers(-32768, 32768, (50, 2)).astype(np.int16)


def test_sixteen_bits_come_back_exactly(tmp_path):
    sound = audio.Sound((WHOLE / 32768).astype(np.float32), 8000)
    audio.write(tmp_path / "a.wav", sound)
    again = audio.read(tmp_path / "a.wav")
    np.testing.assert_array_equal(again.samples, sound.samples)
    assert again.rate == 8000 and again.seconds == 50 / 8000 and again.mono().shape == (50,)
    rate, raw = wavfile.read(tmp_path / "a.wav")
    assert rate == 8000 and raw.dtype == np.int16
    np.testing.assert_array_equal(raw, WHOLE)


@pytest.mark.parametrize(("dtype", "scale", "middle"), [
    (np.uint8, 128, 128), (np.int16, 2**15, 0), (np.int32, 2**31, 0), (np.float32, 1, 0), (np.float64, 1, 0),
])
def test_every_width_is_read(tmp_path, dtype, scale, middle):
    values = np.array([-1, -0.5, 0, 0.25, 0.5])
    wavfile.write(tmp_path / "a.wav", 16000, (values * scale + middle).astype(dtype))
    got = audio.read(tmp_path / "a.wav")
    np.testing.assert_array_equal(got.samples[:, 0], values)
    assert got.samples.dtype == np.float32


def test_24_bits_in_the_extensible_form(tmp_path):
    values = [-(2**23), -1, 0, 1, 2**23 - 1]
    data = b"".join(value.to_bytes(3, "little", signed=True) for value in values) + b"\0"
    kind = struct.pack("<HHIIHHHHIH14s", 0xFFFE, 1, 48000, 144000, 3, 24, 22, 24, 4, 1,
                       bytes.fromhex("000000001000800000aa00389b71"))
    body = b"WAVEfmt " + struct.pack("<I", len(kind)) + kind + b"data" + struct.pack("<I", 15) + data
    (tmp_path / "a.wav").write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    np.testing.assert_array_equal(audio.read(tmp_path / "a.wav").samples[:, 0], np.array(values) / 2.0**23)


def test_what_lies_beyond_is_cut_and_told(tmp_path, caplog):
    audio.write(tmp_path / "a.wav", audio.Sound(np.array([1.5, -1.5, 1.0, -1.0], np.float32), 8000))
    assert "2 of 4 samples lie beyond [-1, 1]" in caplog.text
    np.testing.assert_array_equal(wavfile.read(tmp_path / "a.wav")[1], [32767, -32768, 32767, -32768])


def test_flac(tmp_path):
    pytest.importorskip("soundfile")
    audio.write(tmp_path / "a.flac", audio.Sound((WHOLE / 32768).astype(np.float32), 8000))
    again = audio.read(tmp_path / "a.flac")
    assert again.rate == 8000
    np.testing.assert_array_equal(again.samples * 32768, WHOLE)


def test_files_that_are_no_sound(tmp_path):
    good = tmp_path / "good.wav"
    audio.write(good, audio.Sound(np.zeros(8, np.float32), 8000))
    for name, raw in {"cut.wav": good.read_bytes()[:30], "text.wav": b"RIFF but no sound at all"}.items():
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(ValueError, match=name):
            audio.read(tmp_path / name)
    wavfile.write(tmp_path / "nan.wav", 8000, np.array([0, np.nan], np.float32))
    with pytest.raises(ValueError, match=r"nan\.wav holds samples that are no numbers"):
        audio.read(tmp_path / "nan.wav")
    wavfile.write(tmp_path / "empty.wav", 8000, np.zeros(0, np.int16))
    with pytest.raises(ValueError, match="holds no samples"):
        audio.read(tmp_path / "empty.wav")
    (tmp_path / "picture.wav").write_bytes(b"\x89PNG not a sound")
    with pytest.raises(ValueError, match=r"picture\.wav"):
        audio.read(tmp_path / "picture.wav")
    with pytest.raises(FileNotFoundError, match="is not there"):
        audio.read(tmp_path / "none.wav")


@pytest.mark.parametrize(("name", "samples", "words"), [
    ("a.mp3", np.zeros(4), "does not end in"), ("a.wav", np.full(4, np.nan), "no numbers"),
    ("a.wav", np.zeros((1, 4, 1)), "shape"), ("a.wav", np.zeros((2, 100)), "shape"),
])
def test_what_cannot_be_written(tmp_path, name, samples, words):
    with pytest.raises(ValueError, match=words):
        audio.write(tmp_path / name, audio.Sound(samples, 8000))
    assert not list(tmp_path.iterdir())
