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


@pytest.mark.parametrize("rate", [8000, 16000, 44100])  # of which each is another version of MPEG
def test_mp3_is_read_whatever_its_name_says(tmp_path, rate):
    soundfile = pytest.importorskip("soundfile")
    tone = np.sin(np.arange(rate // 4) / 5) / 2
    soundfile.write(tmp_path / "a.wav", tone, rate, format="MP3")
    again = audio.read(tmp_path / "a.wav")
    assert again.rate == rate and 0.3 < np.abs(again.samples).max() < 0.7


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_samples_are_rounded(tmp_path, name):
    """To the nearest, as soundfile does in FLAC; in WAV it takes the next below."""
    if name == "a.flac":
        pytest.importorskip("soundfile")
    audio.write(tmp_path / name, audio.Sound(np.array([0.6, -0.6, 0.4, -0.4, 2.5, 32767.6]) / 32768, 8000))
    assert (audio.read(tmp_path / name).samples[:, 0] * 32768).tolist() == [1, -1, 0, 0, 2, 32767]


def test_another_sampling_rate():
    time = np.arange(8000) / 8000
    tone = audio.Sound(np.sin(2 * np.pi * 440 * time)[:, None].astype(np.float32), 8000)
    again = audio.resample(tone, 22050)
    assert again.rate == 22050 and again.samples.shape == (22050, 1) and again.samples.dtype == np.float32
    wanted = np.sin(2 * np.pi * 440 * np.arange(22050) / 22050)
    np.testing.assert_allclose(again.samples[500:-500, 0], wanted[500:-500], atol=2e-3)
    with pytest.raises(ValueError, match=r"cannot have 0.5 samples a second"):
        audio.resample(tone, 0.5)


def test_silence_and_what_was_cut_short_are_told(tmp_path, caplog):
    audio.write(tmp_path / "a.wav", audio.Sound(np.zeros(800, np.float32), 8000))
    assert "a.wav is silent" in caplog.text
    assert np.asarray(audio.picture(audio.read(tmp_path / "a.wav")))[150:].max() < 32, "dark"
    (tmp_path / "cut.wav").write_bytes((tmp_path / "a.wav").read_bytes()[: 44 + 800])
    assert audio.read(tmp_path / "cut.wav").samples.shape == (400, 1)
    assert "cut.wav ends before it says that it does; the 0.05 seconds that are there are read" in caplog.text


def test_clipped_sounds_are_told(tmp_path, caplog):
    time = np.arange(4410) / 44100
    for name, gain in {"whole": 1.0, "clipped": 1.5}.items():
        tone = np.sin(2 * np.pi * 200 * time) * gain
        audio.write(tmp_path / f"{name}.wav", audio.Sound(tone.clip(-1, 1).astype(np.float32), 44100))
        audio.read(tmp_path / f"{name}.wav")
    wavfile.write(tmp_path / "loud.wav", 44100, (1.5 * np.sin(2 * np.pi * 200 * time)).astype(np.float32))
    audio.read(tmp_path / "loud.wav")
    assert "clipped.wav is clipped: 8 or more samples in a row" in caplog.text and "whole.wav" not in caplog.text
    assert "loud.wav" not in caplog.text, "floats that go on beyond 1 lost nothing"


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
    with pytest.raises(ValueError, match=r"picture\.wav holds no sound, whatever its name says"):
        audio.read(tmp_path / "picture.wav")
    with pytest.raises(FileNotFoundError, match="is not there, or is a folder"):
        audio.read(tmp_path)
    with pytest.raises(FileNotFoundError, match="is not there"):
        audio.read(tmp_path / "none.wav")


@pytest.mark.parametrize(("name", "samples", "rate", "words"), [
    ("a.mp3", np.zeros(4), 8000, "does not end in"), ("a.wav", np.full(4, np.nan), 8000, "no numbers"),
    ("a.wav", np.zeros((1, 4, 1)), 8000, "shape"), ("a.wav", np.zeros((2, 100)), 8000, "shape"),
    ("a.wav", np.zeros(0), 8000, "no samples"), ("a.wav", np.zeros(4, np.int16), 8000, "whole numbers, int16"),
    ("a.wav", np.zeros(4), 8000.5, "8000.5 samples a second"), ("a.wav", np.zeros(4), 0, "0 samples a second"),
    ("a.flac", np.zeros((4, 9)), 8000, "9 channels"), ("a.flac", np.zeros(4), 10**6, "up to 655,350"),
])
def test_what_cannot_be_written(tmp_path, name, samples, rate, words):
    if name == "a.flac":
        pytest.importorskip("soundfile")
    with pytest.raises(ValueError, match=words):
        audio.write(tmp_path / name, audio.Sound(samples, rate))
    assert not list(tmp_path.iterdir())
