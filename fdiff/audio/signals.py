"""Signals and their spectra: the short-time Fourier transform, its inverse, and phases for bare magnitudes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdiff import keys


def hann(length: int) -> np.ndarray:
    """The window sin^2(pi i / length) of i = 0, ..., length - 1, whose copies half a length apart add up to 1."""
    return np.sin(np.pi * np.arange(length) / length) ** 2


def stft(x: jax.Array, n_fft: int = 2048, hop: int = 512) -> jax.Array:
    """The spectrum of each frame: (..., samples) -> complex (..., 1 + n_fft / 2, 1 + samples / hop).

        X[k, m] = sum_i w[i] x[m hop - n_fft / 2 + i] exp(-2 pi j k i / n_fft),  w = hann(n_fft)

    Frames are centred at m hop, with silence before the beginning and behind the end, as librosa's are.

    Raises ValueError for an n_fft that is odd or a hop longer than it.
    """
    _check(n_fft, hop)
    return jnp.swapaxes(_forward(x, n_fft, hop), -1, -2)


def istft(spectrum: jax.Array, hop: int = 512, length: int | None = None) -> jax.Array:
    """The signal whose `stft` is closest to a spectrum (..., bins, frames): (..., samples) (Griffin & Lim 1984, eq. 6).

        x[i] = sum_m w[i - m hop] y_m[i - m hop] / sum_m w[i - m hop]^2,  y_m the inverse transform of frame m

    hop: between frames. length: of the signal, (frames - 1) hop if not given, which is what whole frames say.
    """
    _check(2 * (spectrum.shape[-2] - 1), hop)
    return _backward(jnp.swapaxes(spectrum, -1, -2), hop, length)


def griffin_lim(
    magnitude: jax.Array,
    key: jax.Array | None = None,
    *,
    n_iter: int = 32,
    hop: int = 512,
    length: int | None = None,
    momentum: float = 0.99,
) -> jax.Array:
    """A signal whose `stft` has about these magnitudes (..., bins, frames): (..., samples) (Perraudin et al. 2013).

        c = stft(istft(magnitude angles)),  angles = (c - momentum / (1 + momentum) c_before) / |.|,  n_iter times

    Args:
        magnitude: not negative; the root of a power.
        key: of the phases to begin with; all 0 if not given.
        n_iter: rounds.
        hop: between frames.
        length: of the signal in samples, (frames - 1) hop if not given.
        momentum: 0 is Griffin & Lim's own algorithm; 0.99 gets nearer in the same number of rounds.
    """
    n_fft, count = 2 * (magnitude.shape[-2] - 1), magnitude.shape[-1]
    _check(n_fft, hop)
    magnitude = jnp.swapaxes(magnitude, -1, -2)
    kind = jnp.result_type(magnitude.dtype, jnp.complex64)
    angles = jnp.ones(magnitude.shape, kind)
    if key is not None:
        angles = jnp.exp(2j * jnp.pi * keys.uniform(key, magnitude.shape)).astype(kind)

    def nearer(_: Any, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        angles, before = state
        rebuilt = _forward(_backward(magnitude * angles, hop, length), n_fft, hop)
        rebuilt = _fitted(rebuilt, -2, count)  # as a length may say fewer frames or more than there are magnitudes
        ahead = rebuilt - momentum / (1 + momentum) * before
        return ahead / (jnp.abs(ahead) + jnp.finfo(magnitude.dtype).tiny), rebuilt

    angles, _ = jax.lax.fori_loop(0, n_iter, nearer, (angles, jnp.zeros_like(angles)))
    return _backward(magnitude * angles, hop, length)


def _forward(x: jax.Array, n_fft: int, hop: int) -> jax.Array:
    """`stft` with the frames before the bins, as they lie in memory."""
    count, pieces = 1 + x.shape[-1] // hop, -(-n_fft // hop)
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(n_fft // 2, 0)])
    blocks = _fitted(padded, -1, (count + pieces - 1) * hop).reshape(*x.shape[:-1], -1, hop)
    frames = jnp.concatenate([blocks[..., i : i + count, :] for i in range(pieces)], -1)[..., :n_fft]
    return jnp.fft.rfft(frames * jnp.asarray(hann(n_fft), x.dtype))


def _backward(spectrum: jax.Array, hop: int, length: int | None) -> jax.Array:
    """`istft` of frames before bins."""
    count, n_fft = spectrum.shape[-2], 2 * (spectrum.shape[-1] - 1)
    window, least = hann(n_fft), np.finfo(np.float32).tiny
    weight = _added(np.broadcast_to(window**2, (count, n_fft)), hop)
    scale = np.where(weight > least, 1 / np.maximum(weight, least), 1.0)  # no window reaches the very ends
    frames = jnp.fft.irfft(spectrum, n_fft)
    total = _added(frames * jnp.asarray(window, frames.dtype), hop)
    signal = (total * jnp.asarray(scale, total.dtype))[..., n_fft // 2 :]
    return _fitted(signal, -1, (count - 1) * hop if length is None else length)


def _fitted(x: jax.Array, axis: int, length: int) -> jax.Array:
    """x cut to that length, or with zeros behind it."""
    cut = jax.lax.slice_in_dim(x, 0, min(length, x.shape[axis]), axis=axis)
    ends = [(0, 0)] * x.ndim
    ends[axis] = (0, length - cut.shape[axis])
    return jnp.pad(cut, ends)


def _added(frames: Any, hop: int) -> Any:
    """Frames (..., count, n_fft) laid hop apart and added: (..., (count + n_fft / hop - 1) hop)."""
    xp = np if isinstance(frames, np.ndarray) else jnp
    *batch, count, n_fft = frames.shape
    pieces = -(-n_fft // hop)
    none = [(0, 0)] * len(batch)
    blocks = xp.pad(frames, [*none, (0, 0), (0, pieces * hop - n_fft)]).reshape(*batch, count, pieces, hop)
    total = sum(xp.pad(blocks[..., i, :], [*none, (i, pieces - 1 - i), (0, 0)]) for i in range(pieces))
    return total.reshape(*batch, -1)


def _check(n_fft: int, hop: int) -> None:
    if n_fft % 2 or not 1 <= hop <= n_fft:
        raise ValueError(f"n_fft is {n_fft} and hop {hop}; n_fft must be even, and hop from 1 to n_fft")
