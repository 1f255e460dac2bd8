"""Mel spectrograms: filters as wide as hearing tells pitches apart, decibels, and the way back."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from fdiff.audio.signals import stft


@functools.cache
def mel_filters(rate: int, n_fft: int, n_mels: int = 128, low: float = 0.0, high: float | None = None) -> np.ndarray:
    """Triangles (n_mels, 1 + n_fft / 2), evenly spaced in mel, each of area 2 / its width in hertz (Slaney 1998).

        mel = 3 f / 200 below 1,000 Hz, 15 + 27 ln(f / 1000) / ln 6.4 above

    rate: samples a second. low, high: hertz; high is rate / 2 if not given.

    Raises ValueError for bounds that are none.
    """
    high = rate / 2 if high is None else high
    if not 0 <= low < high <= rate / 2 or n_mels < 1:
        raise ValueError(f"{n_mels} mel filters from {low} to {high} Hz cannot be at {rate} samples a second; there "
                         f"must be one or more, within 0 and {rate / 2} Hz")
    edges = _hertz(np.linspace(_mel(low), _mel(high), n_mels + 2))
    bins = np.arange(1 + n_fft // 2) * rate / n_fft
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


def mel_spectrogram(
    x: jax.Array, rate: int, *, n_fft: int = 2048, hop: int = 512, n_mels: int = 128, low: float = 0.0,
    high: float | None = None,
) -> jax.Array:  # fmt: skip
    """The power in each mel filter: (..., samples) -> (..., n_mels, frames), see `stft` and `mel_filters`."""
    return jnp.asarray(mel_filters(rate, n_fft, n_mels, low, high)) @ jnp.abs(stft(x, n_fft, hop)) ** 2


def inverse_mel(
    mel: jax.Array, rate: int, *, n_fft: int = 2048, low: float = 0.0, high: float | None = None, n_iter: int = 100
) -> jax.Array:
    """A magnitude (..., 1 + n_fft / 2, frames) whose `mel_spectrogram` is about `mel` (..., n_mels, frames).

        argmin |filters p - mel|^2,  p >= 0;  magnitude = sqrt(p)

    Many p do, as there are more bins than filters; this one begins at the least-squares solution of the smallest norm,
    its negative parts cut, and goes down the gradient with momentum (Beck & Teboulle 2009, alg. FISTA), n_iter times.
    """
    filters = mel_filters(rate, n_fft, mel.shape[-2], low, high).astype(np.float64)
    step = 1 / np.linalg.norm(filters, 2) ** 2
    down, back = jnp.asarray(filters, mel.dtype), jnp.asarray(step * filters.T, mel.dtype)
    first = jnp.maximum(jnp.asarray(np.linalg.pinv(filters), mel.dtype) @ mel, 0)

    def nearer(state: tuple[jax.Array, jax.Array], share: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        power, ahead = state
        new = jnp.maximum(ahead - back @ (down @ ahead - mel), 0)
        return (new, new + share * (new - power)), None

    speeds = [1.0]
    for _ in range(n_iter):
        speeds.append((1 + np.sqrt(1 + 4 * speeds[-1] ** 2)) / 2)
    shares = jnp.asarray([(a - 1) / b for a, b in itertools.pairwise(speeds)], mel.dtype)
    (power, _), _ = jax.lax.scan(nearer, (first, first), shares)
    return jnp.sqrt(power)


def decibels(power: jax.Array, *, range_db: float | None = 80.0, least: float = 1e-10) -> jax.Array:
    """10 log10(power / loudest), each spectrogram (..., bins, frames) by its own loudest and no lower than -range_db.

    So a spectrogram is the same alone and in a batch. least: power below it counts as it.
    """
    axes = tuple(range(-min(2, power.ndim), 0))
    loud = jnp.maximum(power, least)
    db = 10 * jnp.log10(loud / loud.max(axes, keepdims=True))
    return db if range_db is None else jnp.maximum(db, -range_db)


def power_of(db: jax.Array) -> jax.Array:
    """10^(db / 10), which `decibels` came from but for its loudest."""
    return 10.0 ** (db / 10)


def _mel(hertz: float) -> float:
    return 3 * hertz / 200 if hertz < 1000 else 15 + 27 * float(np.log(hertz / 1000) / np.log(6.4))


def _hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, 200 * mel / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))
