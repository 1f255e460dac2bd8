"""Sound: signals and spectra, mel spectrograms, files, and pictures of them."""

from fdiff.audio.files import Sound, read, resample, write
from fdiff.audio.mel import decibels, inverse_mel, mel_filters, mel_spectrogram, power_of
from fdiff.audio.pictures import picture
from fdiff.audio.signals import griffin_lim, istft, stft
from fdiff.audio.spectrograms import Mel

__all__ = [
    "Mel",
    "Sound",
    "decibels",
    "griffin_lim",
    "inverse_mel",
    "istft",
    "mel_filters",
    "mel_spectrogram",
    "picture",
    "power_of",
    "read",
    "resample",
    "stft",
    "write",
]
