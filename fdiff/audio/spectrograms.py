"""Spectrograms as gray pictures that networks draw: the `mel` of an audio diffusion pipeline."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import hub, registry
from fdiff.audio.files import Sound
from fdiff.audio.mel import decibels, inverse_mel, mel_spectrogram, power_of
from fdiff.audio.signals import griffin_lim

FILE = "mel_config.json"


@registry.register
@dataclasses.dataclass(frozen=True)
class Mel(hub.Pretrained):
    """Sounds of x_res hop_length - 1 samples as pictures (y_res, x_res) of 0 to 255, and pictures as sounds.

        pixel = 255 (1 + decibels / top_db)

    x_res, y_res: width, in frames, and height, in mel filters, the lowest first.
    sample_rate: samples a second. n_fft, hop_length: of the frames, in samples. top_db: how far below the loudest black
    lies. n_iter: rounds of Griffin and Lim's algorithm.
    """

    x_res: int = 256
    y_res: int = 256
    sample_rate: int = 22050
    n_fft: int = 2048
    hop_length: int = 512
    top_db: int = 80
    n_iter: int = 32

    library: ClassVar[str] = "audio_diffusion"  # where diffusers has it

    @property
    def slice_size(self) -> int:
        """Samples of a picture."""
        return self.x_res * self.hop_length - 1

    def slices(self, sound: Sound | np.ndarray) -> np.ndarray:
        """(n, slice_size) pieces of a sound one after the other, the end that fills none left out.

        A sound shorter than one is filled up with silence. Raises ValueError for another sampling rate, and for samples
        that are not (n,) or (n, channels).
        """
        if isinstance(sound, Sound):
            if sound.rate != self.sample_rate:
                raise ValueError(f"the sound has {sound.rate} samples a second and the model {self.sample_rate}; "
                                 "fdiff.audio.resample changes that")
            sound = sound.mono()
        samples = np.asarray(sound, np.float32)
        samples = samples.mean(1) if samples.ndim == 2 else samples
        if samples.ndim != 1 or not np.isfinite(samples).all():
            raise ValueError(f"a sound has the shape {samples.shape} or samples that are no numbers; give (n,) or "
                             "(n, channels)")
        whole = np.pad(samples, (0, max(0, self.x_res * self.hop_length - len(samples))))
        return whole[: len(whole) // self.slice_size * self.slice_size].reshape(-1, self.slice_size)

    def pixels(self, samples: jax.Array) -> jax.Array:
        """(..., slice_size) samples as (..., y_res, x_res) in [0, 255], not rounded."""
        mel = mel_spectrogram(samples, self.sample_rate, n_fft=self.n_fft, hop=self.hop_length, n_mels=self.y_res)
        return (decibels(mel, range_db=self.top_db) + self.top_db) * 255 / self.top_db

    def samples(self, pixels: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """(..., y_res, x_res) in [0, 255] as samples (..., (x_res - 1) hop_length), the loudest power at 1.

        key: of the phases to begin with, which a picture does not say; all 0 if not given.
        """
        power = power_of(jnp.asarray(pixels, jnp.float32) * self.top_db / 255 - self.top_db)
        magnitude = inverse_mel(power, self.sample_rate, n_fft=self.n_fft)
        return griffin_lim(magnitude, key, n_iter=self.n_iter, hop=self.hop_length)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read a mel_config.json."""
        return cls(**{field.name: config[field.name] for field in dataclasses.fields(cls) if field.name in config})

    @classmethod
    def from_source(cls, place: hub.Source) -> Self:
        """Read the mel_config.json of a folder or a repository."""
        return cls.from_config(hub.read_json(hub.fetch(place, FILE)))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write mel_config.json."""
        with hub.staged(folder) as temporary:
            hub.write_json(temporary / FILE, {"_class_name": "Mel", **dataclasses.asdict(self)})
