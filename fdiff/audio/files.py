"""Sounds in files: WAV through SciPy, and what else the extra `audio` reads and writes."""

from __future__ import annotations

import logging
import math
import struct
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fdiff import hub

log = logging.getLogger("fdiff")

FORMATS = (".wav", ".flac")
FULL, RUN = 0.999, 8  # so many samples in a row, as loud as that, are of no tone that one hears
MOST_FLAC = 8, 655350  # channels, and samples a second
# How files begin that soundfile may read; MP3s without a tag begin with 11 bits of 1.
MP3S = (b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xe3", b"\xff\xfa", b"\xff\xf2", b"\xff\xe2")
SOUNDS = (b"fLaC", b"OggS", b"FORM", b".snd", b"caff", b"riff", *MP3S)


class Sound(NamedTuple):
    """Samples (n, channels), float32 in [-1, 1], and how many of them a second has."""

    samples: np.ndarray
    rate: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / self.rate

    def mono(self) -> np.ndarray:
        """The mean of its channels (n,)."""
        return self.samples.mean(1)


def read(file: str | Path) -> Sound:
    """The sound in a WAV of 8 to 32 bits, 64, or of floats; in a FLAC, and what else soundfile reads, with `audio`.

    Integers of b bits are divided by 2^(b - 1), so that what `write` wrote comes back exactly. What there is of a WAV
    that was cut short is read, with a warning; one says as well that a sound is clipped.

    Raises ValueError for a file that is no sound, or whose samples are no numbers, and FileNotFoundError.
    """
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there, or is a folder; give a WAV or FLAC file")
    with path.open("rb") as opened:
        kind = opened.read(4)
    if kind in (b"RIFF", b"RIFX", b"RF64"):
        samples, rate = _wav(path)
    elif kind.startswith(SOUNDS):
        samples, rate = _others(path)
    else:
        raise ValueError(f"{path} holds no sound, whatever its name says; give a WAV or FLAC file")
    samples = samples[:, None] if samples.ndim == 1 else samples
    if not len(samples) or rate < 1:
        raise ValueError(f"{path} holds no samples, or none a second; give a sound that lasts")
    if not np.isfinite(samples).all():
        raise ValueError(f"{path} holds samples that are no numbers; write it anew")
    at_end = (np.abs(samples) >= FULL) & (np.abs(samples) <= 1)  # floats that go on beyond it are loud, and not clipped
    if len(samples) >= RUN and np.lib.stride_tricks.sliding_window_view(at_end, RUN, 0).all(-1).any():
        log.warning("%s is clipped: %d or more samples in a row lie at the end of their range; record it more softly",
                    path, RUN)
    return Sound(samples, rate)


def write(file: str | Path, sound: Sound) -> None:
    """Write a sound as 16-bit PCM, in WAV or, with the extra `audio`, FLAC: round(32768 x), cut to 16 bits.

    Samples beyond [-1, 1] are cut, which a warning says, as one does of silence. The file is there whole or not at all.

    Raises ValueError for another ending, samples that are no numbers or whole ones, none at all, a shape that is no
    sound's, or a sampling rate that no such file has.
    """
    path = Path(file)
    check_name(path)
    samples = np.asarray(sound.samples)
    samples = samples[:, None] if samples.ndim == 1 else samples
    if samples.ndim != 2 or samples.shape[1] > 64:
        raise ValueError(f"{path}: samples have the shape {sound.samples.shape}; it must be (n,) or (n, channels)")
    if not samples.size:
        raise ValueError(f"{path}: there are no samples; give a sound that lasts")
    if samples.dtype.kind in "iu":
        raise ValueError(f"{path}: samples are whole numbers, {samples.dtype}; divide them, to lie in [-1, 1]")
    if not np.isfinite(samples).all():
        raise ValueError(f"{path}: there are samples that are no numbers; nothing was written")
    wave = path.suffix.lower() == ".wav"
    channels, fastest = (64, 2**31 - 1) if wave else MOST_FLAC
    if sound.rate != int(sound.rate) or not 1 <= sound.rate <= fastest or samples.shape[1] > channels:
        raise ValueError(f"{path} would have {samples.shape[1]} channels and {sound.rate!r} samples a second; it can "
                         f"have {channels} and a whole number up to {fastest:,}")
    cut = int((np.abs(samples) > 1).sum())
    if not samples.any():
        log.warning("%s is silent, all of its samples being 0", path)
    if cut:
        log.warning("%s: %d of %d samples lie beyond [-1, 1] and are cut; scale them down", path, cut, samples.size)
    whole = np.clip(np.round(samples * 32768.0), -32768, 32767).astype(np.int16)
    with hub.replacing(path) as part:
        if wave:
            from scipy.io import wavfile

            with part.open("wb") as opened:
                wavfile.write(opened, int(sound.rate), whole)
        else:
            _soundfile(path).write(part, whole, int(sound.rate), format=path.suffix[1:].upper(), subtype="PCM_16")


def resample(sound: Sound, rate: int) -> Sound:
    """The sound with so many samples a second, by a filter that lets pass what both rates can hold.

    Raises ValueError for a rate that is none.
    """
    from scipy.signal import resample_poly

    if rate != int(rate) or rate < 1:
        raise ValueError(f"a sound cannot have {rate!r} samples a second; give a whole number, such as 16000")
    both = math.gcd(int(rate), sound.rate)
    samples = resample_poly(np.asarray(sound.samples, np.float64), int(rate) // both, sound.rate // both)
    return Sound(samples.astype(np.float32), int(rate))


def check_name(file: str | Path) -> None:
    """Raise ValueError for a name that does not say how a sound is to be written, or that cannot be here."""
    path = Path(file)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path} does not end in {' or '.join(FORMATS)}; name one of them")
    if path.suffix.lower() != ".wav":
        _soundfile(path)


def _wav(path: Path) -> tuple[np.ndarray, int]:
    from scipy.io import wavfile

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", wavfile.WavFileWarning)
        try:
            rate, samples = wavfile.read(path)
        except (ValueError, EOFError, LookupError, TypeError, NameError, ArithmeticError, struct.error) as error:
            raise ValueError(f"{path} is no WAV file, is damaged or is compressed ({error}); write it anew") from None
    if any("prematurely" in str(one.message) for one in told):  # others are of chunks that say something else
        log.warning("%s ends before it says that it does; the %g seconds that are there are read", path,
                    len(samples) / max(rate, 1))
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128, rate
    if samples.dtype.kind == "i":  # of 24 bits SciPy makes 32, the lowest of them 0
        return (samples / 2.0 ** (8 * samples.dtype.itemsize - 1)).astype(np.float32), rate
    return samples.astype(np.float32), rate


def _others(path: Path) -> tuple[np.ndarray, int]:
    file = _soundfile(path)
    try:
        return file.read(path, dtype="float32", always_2d=True)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{path} is no sound that soundfile reads ({error}); give a WAV or FLAC file") from None


def _soundfile(path: Path) -> Any:
    try:
        import soundfile
    except ImportError:
        raise ValueError(f'{path}: what is no WAV needs soundfile; install it with pip install "fdiff-jax[audio]"') \
            from None
    return soundfile
