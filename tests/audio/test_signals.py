"""Spectra, mel spectrograms and the way back: beside their definitions, and numbers and sounds of librosa."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdiff import audio
from fdiff.audio.signals import hann

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(("n_fft", "hop", "count"), [(32, 8, 100), (30, 7, 61), (16, 16, 5), (16, 8, 64)])
def test_a_spectrum_is_what_its_formula_says(n_fft, hop, count):
    x = RANDOM.standard_normal((2, count)).astype("float32")
    padded = np.pad(x.astype(np.float64), ((0, 0), (n_fft // 2, n_fft + hop)))
    waves = np.exp(-2j * np.pi * np.outer(np.arange(n_fft // 2 + 1), np.arange(n_fft)) / n_fft) * hann(n_fft)
    expected = np.stack([padded[:, m * hop : m * hop + n_fft] @ waves.T for m in range(1 + count // hop)], -1)
    got = audio.stft(jnp.asarray(x), n_fft, hop)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    if hop < n_fft // 2:  # every sample lies well within a window
        kept = (1 + count // hop - 1) * hop
        np.testing.assert_allclose(audio.istft(got, hop)[..., :kept], x[:, :kept], atol=1e-5)


def test_lengths_that_are_asked_for():
    x = jnp.asarray(RANDOM.standard_normal(100), jnp.float32)
    spectrum = audio.stft(x, 32, 8)
    assert audio.istft(spectrum, 8).shape == (96,)
    np.testing.assert_allclose(audio.istft(spectrum, 8, 100), x, atol=1e-5)
    assert audio.istft(spectrum, 8, 130).shape == (130,)
    assert audio.griffin_lim(jnp.abs(spectrum), n_iter=2, hop=8, length=130).shape == (130,)


def test_phases_come_nearer_with_every_round():
    x = jnp.asarray(np.sin(np.arange(2000) / 5) * np.exp(-np.arange(2000) / 700), jnp.float32)
    magnitude = jnp.abs(audio.stft(x, 64, 16))
    off = [
        float(jnp.linalg.norm(jnp.abs(audio.stft(audio.griffin_lim(magnitude, n_iter=n, hop=16), 64, 16)) - magnitude))
        for n in (0, 8, 64)
    ]
    assert off[2] < off[1] < off[0] and off[2] < 0.1 * float(jnp.linalg.norm(magnitude))


def test_a_batch_is_what_each_is_alone_and_gradients_are_numbers():
    x = jnp.asarray(RANDOM.standard_normal((2, 256)), jnp.float32) * jnp.array([[1.0], [0.01]])

    def picture(x):
        return audio.decibels(audio.mel_spectrogram(x, 8000, n_fft=64, hop=16, n_mels=8))

    np.testing.assert_allclose(picture(x)[1], picture(x[1]), atol=1e-4)
    gradient = jax.grad(lambda x: audio.griffin_lim(jnp.abs(audio.stft(x, 64, 16)), n_iter=2, hop=16).sum())(x)
    assert jnp.isfinite(gradient).all()


def test_inverse_mel_gives_the_spectrogram_back():
    mel = audio.mel_spectrogram(jnp.asarray(RANDOM.standard_normal(2000), jnp.float32), 8000, n_fft=256, hop=64,
                                n_mels=20)
    magnitude = audio.inverse_mel(mel, 8000, n_fft=256)
    assert magnitude.shape == (129, mel.shape[-1]) and float(magnitude.min()) >= 0
    np.testing.assert_allclose(audio.mel_filters(8000, 256, 20) @ magnitude**2, mel, rtol=1e-3, atol=1e-4 * mel.max())


def test_a_spoken_digit_as_librosa_sees_it(shared_data):
    kept = np.load(shared_data / "fixtures" / "mel_fsdd.npz")
    np.testing.assert_allclose(audio.mel_filters(8000, 1024, 64), kept["mel_basis"], atol=1e-8)
    mel = audio.mel_spectrogram(jnp.asarray(kept["audio"]), 8000, n_fft=1024, hop=128, n_mels=64)
    np.testing.assert_allclose(mel, kept["mel_power"], rtol=1e-5, atol=1e-6)
    pixels = np.asarray((audio.decibels(mel) + 80) * 255 / 80 + 0.5).astype("uint8")
    assert np.abs(pixels.astype(int) - kept["image"]).max() <= 1

    asked = kept["image"] * (80 / 255) - 80
    magnitude = audio.inverse_mel(audio.power_of(jnp.asarray(asked, jnp.float32)), 8000, n_fft=1024)
    sound = audio.griffin_lim(magnitude, jax.random.key(0), hop=128)
    again = audio.decibels(audio.mel_spectrogram(sound, 8000, n_fft=1024, hop=128, n_mels=64))
    assert np.abs(again - asked).mean() < 0.82 + 0.3  # librosa's own way there and back loses 0.82 dB


@pytest.mark.parametrize(("call", "words"), [
    (lambda: audio.stft(jnp.zeros(8), 5, 2), "n_fft is 5"), (lambda: audio.stft(jnp.zeros(8), 4, 5), "hop 5"),
    (lambda: audio.istft(jnp.zeros((3, 2), jnp.complex64), 0), "hop 0"),
    (lambda: audio.mel_filters(8000, 64, high=4001.0), "4001"), (lambda: audio.mel_filters(8000, 64, 0), "0 mel"),
])
def test_what_cannot_be_asked(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parity
def test_librosa(shared_data):
    import librosa

    x = np.load(shared_data / "fixtures" / "mel_fsdd.npz")["audio"]
    for n_fft, hop in ((1024, 128), (1000, 300)):
        theirs = librosa.stft(x, n_fft=n_fft, hop_length=hop)
        np.testing.assert_allclose(audio.stft(jnp.asarray(x), n_fft, hop), theirs, atol=1e-5)
        np.testing.assert_allclose(
            audio.istft(jnp.asarray(theirs), hop, len(x)),
            librosa.istft(theirs, n_fft=n_fft, hop_length=hop, length=len(x)), atol=1e-6,
        )  # fmt: skip
    magnitude = np.abs(theirs[:, :20])
    np.testing.assert_allclose(
        audio.griffin_lim(jnp.asarray(magnitude), n_iter=6, hop=300),
        librosa.griffinlim(magnitude, n_iter=6, hop_length=300, n_fft=1000, init=None), atol=1e-4,
    )  # fmt: skip
    for rate, n_fft, n_mels, low, high in ((22050, 2048, 128, 0, None), (16000, 1024, 64, 50, 7600)):
        theirs = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels, fmin=low, fmax=high)
        np.testing.assert_allclose(audio.mel_filters(rate, n_fft, n_mels, low, high), theirs, atol=1e-8)
