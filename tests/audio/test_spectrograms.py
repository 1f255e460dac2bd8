"""Sounds as pictures and back."""

import jax
import numpy as np
import pytest

from fdiff import audio

MEL = audio.Mel(x_res=16, y_res=16, sample_rate=8000, n_fft=256, hop_length=64, n_iter=8)
TONES = (np.sin(np.arange(3000) * np.linspace(0.1, 0.5, 3000)) * 0.5).astype(np.float32)


def test_there_and_back():
    pieces = MEL.slices(audio.Sound(TONES[:, None], 8000))
    assert pieces.shape == (2, 16 * 64 - 1)
    pixels = MEL.pixels(pieces)
    assert pixels.shape == (2, 16, 16) and float(pixels.max()) == 255
    sounds = MEL.samples(pixels, jax.random.key(0))
    assert sounds.shape == (2, 15 * 64)
    again = MEL.pixels(np.pad(sounds, ((0, 0), (0, 63))))
    off = np.abs(again - pixels)[..., :-2] * MEL.top_db / 255  # the last frames look beyond the sound's end
    assert np.median(off) < 1, "decibels"


def test_a_short_sound_is_filled_up_and_what_is_none_is_told():
    assert MEL.slices(TONES[:100]).shape == (1, 1023)
    assert MEL.slices(np.stack([TONES, TONES], 1)).shape == (2, 1023)
    for sound, words in ((audio.Sound(TONES[:, None], 16000), "16000 samples a second and the model 8000"),
                         (np.full(2000, np.nan), "no numbers"),
                         (np.zeros((2, 2, 2)), "shape")):
        with pytest.raises(ValueError, match=words):
            MEL.slices(sound)


def test_saving(tmp_path):
    MEL.save_pretrained(tmp_path / "mel")
    assert audio.Mel.from_pretrained(tmp_path / "mel") == MEL


def test_a_picture_of_a_sound():
    drawn = np.asarray(audio.picture(audio.Sound(TONES[:, None], 8000), 120, 90))
    assert drawn.shape == (90, 120, 3)
    wave, tones = drawn[:30], drawn[30:].astype(int).sum(-1)
    assert (wave[0] < 255).any() and (wave[-1] < 255).any(), "the loudest reach the edges"
    middle = tones[:, 20:100].argmax(0)
    assert middle[-1] < middle[0] and (np.diff(middle) <= 2).all(), "a tone that rises goes up"
