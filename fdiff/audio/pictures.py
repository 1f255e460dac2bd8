"""Sounds as pictures: the waveform, and the spectrogram in mel below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from fdiff.audio.files import Sound
from fdiff.audio.mel import decibels, mel_spectrogram

if TYPE_CHECKING:
    from PIL import Image

PAPER, INK = (255, 255, 255), (31, 78, 156)
# dark blue over red to light yellow, as brightness rises evenly
HUES = np.array([(3, 5, 26), (59, 28, 104), (143, 41, 105), (216, 72, 67), (249, 142, 33), (252, 234, 150)], float)


def picture(sound: Sound, width: int = 640, height: int = 320) -> Image.Image:
    """The waveform, loudest at the edges of its third of the height, above the spectrogram of 80 dB, dark to light."""
    from PIL import Image

    above = height // 3
    sheet = Image.new("RGB", (width, height), PAPER)
    sheet.paste(Image.fromarray(_waveform(sound.mono(), width, above)), (0, 0))
    sheet.paste(spectrogram(sound).resize((width, height - above), Image.Resampling.BICUBIC), (0, above))
    return sheet


def spectrogram(sound: Sound) -> Image.Image:
    """The power in mel filters, in decibels: time to the right, low tones at the bottom."""
    from PIL import Image

    n_fft = 2 ** max(6, round(np.log2(sound.rate * 0.064)))  # about 64 ms, in which tones can be told apart
    mel = mel_spectrogram(jnp.asarray(sound.mono()), sound.rate, n_fft=n_fft, hop=n_fft // 4, n_mels=n_fft // 16)
    heard = float(mel.max()) > 0  # the loudest of silence is no louder than the rest
    shares = np.asarray(decibels(mel))[::-1] / 80 + 1 if heard else np.zeros(mel.shape)
    colours = [np.interp(shares, np.linspace(0, 1, len(HUES)), hue) for hue in HUES.T]
    return Image.fromarray(np.stack(colours, -1).round().astype(np.uint8))


def _waveform(samples: np.ndarray, width: int, height: int) -> np.ndarray:
    """A line from the lowest to the highest sample of each column of pixels."""
    edges = np.linspace(0, len(samples), width + 1).astype(int)
    loudest = max(float(np.abs(samples).max()), 1e-9)
    canvas = np.full((height, width, 3), PAPER, np.uint8)
    for column in range(width):
        part = samples[min(edges[column], len(samples) - 1) : max(edges[column + 1], edges[column] + 1)]
        top, bottom = ((1 - np.array([part.max(), part.min()]) / loudest) / 2 * (height - 1)).round().astype(int)
        canvas[top : bottom + 1, column] = INK
    return canvas
