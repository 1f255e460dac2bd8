"""The random numbers of torch, without torch: the picture of `torch.Generator("cpu").manual_seed(42)`.

A generator is a stream, as torch's is: each draw continues where the last one stopped, so the order and the
shapes of the draws matter (first the latents, then the noise of every step). `channels_last` makes torch's
draw of (b, c, h, w) and returns it as (b, h, w, c).

    generator = CPUGenerator(42)
    latents = channels_last(generator, (1, 64, 64, 4))

NumPy only. Equal to torch 2.13; its float32 and float64 streams on a CPU have not changed for years.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike

Array = np.ndarray
Shape = int | Sequence[int]


class Generator(Protocol):
    """What CPUGenerator and CUDAGenerator both are."""

    def rand(self, shape: Shape, dtype: DTypeLike = np.float32) -> Array:
        """Uniform numbers in [0, 1), as torch.rand."""

    def randn(self, shape: Shape, dtype: DTypeLike = np.float32) -> Array:
        """Standard normal numbers, as torch.randn."""


class CPUGenerator:
    """torch.Generator("cpu").manual_seed(seed): MT19937 and the Box-Muller transform.

    A uniform number is the low 24 bits of a word over 2^24 (float64: the low 53 of two words over 2^53).
    Sixteen normal numbers or more come in blocks of 16 uniform ones: with u = block[:8] and v = block[8:],
    the first eight are sqrt(-2 log(1 - u)) cos(2 pi v), the last eight have sin; where the size is no
    multiple of 16, the last 16 places are drawn once more. Fewer than 16 are made in pairs, in float64, and
    the odd one is kept for the next small draw.
    """

    def __init__(self, seed: int) -> None:
        self._words = np.random.RandomState(_unsigned(seed) & 0xFFFFFFFF)  # its streams are frozen by NumPy
        self._spare: float | None = None

    def rand(self, shape: Shape, dtype: DTypeLike = np.float32) -> Array:
        """Uniform numbers in [0, 1), as torch.rand: float16, bfloat16, float32 or float64."""
        shape, dtype = _as_tuple(shape), _checked(dtype)
        values = self._uniform(math.prod(shape), dtype).astype(dtype)
        return np.where(values == 1, dtype.type(0), values).reshape(shape)  # 1 is a rounded float16

    def randn(self, shape: Shape, dtype: DTypeLike = np.float32) -> Array:
        """Standard normal numbers, as torch.randn: float16, bfloat16, float32 or float64."""
        shape, dtype = _as_tuple(shape), _checked(dtype)
        size = math.prod(shape)
        if size < 16:
            return np.array([self._one_normal() for _ in range(size)]).astype(dtype).reshape(shape)
        whole = size // 16 * 16
        if dtype.itemsize < 4:  # the half precisions draw no number that they then draw again
            values = np.empty(size, np.float32)
            values[:whole] = _box_muller_blocks(self._uniform(whole, dtype))
        else:
            uniform = self._uniform(size, dtype)
            values = np.concatenate([_box_muller_blocks(uniform[:whole]), uniform[whole:]])
        if size % 16:
            values[-16:] = _box_muller_blocks(self._uniform(16, dtype))
        return values.astype(dtype).reshape(shape)

    def randint(self, low: int, high: int, shape: Shape) -> Array:
        """Whole numbers in [low, high), as torch.randint."""
        if high <= low:
            raise ValueError(f"randint needs low < high, not {low} and {high}.")
        shape, span = _as_tuple(shape), np.uint64(high - low)
        size = math.prod(shape)
        words = self._words64(size) if span >= 1 << 28 else self._words32(size).astype(np.uint64)
        return (words % span).astype(np.int64).reshape(shape) + low

    def _words32(self, size: int) -> Array:
        return np.frombuffer(self._words.bytes(4 * size) if size else b"", "<u4")  # bytes(0) takes a word

    def _words64(self, size: int) -> Array:
        words = self._words32(2 * size).astype(np.uint64)
        return words[0::2] << HALF | words[1::2]

    def _uniform(self, size: int, dtype: np.dtype) -> Array:
        if dtype == np.float64:
            return (self._words64(size) & np.uint64(2**53 - 1)) * 2.0**-53
        return (self._words32(size) & np.uint32(2**24 - 1)).astype(np.float32) * np.float32(2.0**-24)

    def _one_normal(self) -> float:
        if self._spare is not None:
            value, self._spare = self._spare, None
            return value
        u, v = self._uniform(2, np.dtype(np.float64)).tolist()
        radius, angle = math.sqrt(-2 * math.log1p(-v)), 2 * math.pi * u
        self._spare = radius * math.sin(angle)
        return radius * math.cos(angle)


class CUDAGenerator:
    """torch.Generator("cuda").manual_seed(seed): Philox4x32-10, keyed by the seed.

    Thread i of a draw has the counter (call, 0, i, 0), whose four numbers are the elements i, i + threads,
    i + 2 threads and i + 3 threads; `call` grows by one after them and goes on in the next draw. `threads`
    are 256 for each begun 256 elements, but at most what the card keeps resident: its multiprocessors times
    the threads of each (221184 on A100, 270336 on H100, 196608 on RTX 4090, 125952 on RTX 3090). So
    `resident_threads` changes larger draws only, not the latents of one picture. Of two uniform numbers u, v
    in (0, 1) the normal ones are sqrt(-2 log u) sin(2 pi v) and sqrt(-2 log u) cos(2 pi v); the card's fast
    sine is off by up to about 2e-6.

    Reference: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
    """

    def __init__(self, seed: int, resident_threads: int = 221184) -> None:
        if resident_threads < 256 or resident_threads % 256:
            raise ValueError(f"resident_threads must be a multiple of 256, not {resident_threads}.")
        seed = _unsigned(seed)
        self._key = (seed & 0xFFFFFFFF, seed >> 32)
        self._resident_threads = resident_threads
        self._offset = 0  # in counters: a quarter of what torch calls the offset

    def rand(self, shape: Shape, dtype: DTypeLike = np.float32) -> Array:
        """Uniform numbers in [0, 1), as torch.rand on a card: float16, bfloat16 or float32."""
        dtype = _checked(dtype)
        values = self._draw(shape, dtype, lambda words: _unit(words, 1.0))
        return np.where(values == 1, dtype.type(0), values)

    def randn(self, shape: Shape, dtype: DTypeLike = np.float32) -> Array:
        """Standard normal numbers, as torch.randn on a card: float16, bfloat16 or float32."""
        return self._draw(shape, _checked(dtype), _curand_normal)

    def _draw(self, shape: Shape, dtype: np.dtype, transform: Callable[[Array], Array]) -> Array:
        if dtype == np.float64:
            raise ValueError("CUDAGenerator draws float16, bfloat16 and float32; ask for one of them.")
        shape = _as_tuple(shape)
        size = math.prod(shape)
        if size == 0:
            return np.zeros(shape, dtype)
        threads = min(-(-size // 256) * 256, self._resident_threads)
        calls = -(-size // (4 * threads))
        counter = np.zeros((4, calls, threads), np.uint64)
        steps = np.arange(self._offset, self._offset + calls, dtype=np.uint64)[:, None]
        counter[0], counter[1] = steps & LOW, steps >> HALF
        counter[2] = np.arange(threads, dtype=np.uint64)
        self._offset += calls
        values = transform(_philox(counter, self._key))  # (4, calls, threads)
        return values.swapaxes(0, 1).reshape(-1)[:size].astype(dtype).reshape(shape)


def channels_last(
    generators: Generator | Sequence[Generator], shape: Sequence[int], dtype: DTypeLike = np.float32
) -> Array:
    """Draw normal numbers of `shape` (b, ..., c) as torch does, which lays them out (b, c, ...).

    Several generators are one for each image: every one of them draws (1, c, ...).
    """
    batch, *space, channels = shape
    if isinstance(generators, Sequence):
        if len(generators) != batch:
            raise ValueError(f"{len(generators)} generators for a batch of {batch}: give one, or one each.")
        drawn = np.concatenate([one.randn((1, channels, *space), dtype) for one in generators])
    else:
        drawn = generators.randn((batch, channels, *space), dtype)
    return np.ascontiguousarray(np.moveaxis(drawn, 1, -1))


LOW, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
PHILOX_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
PHILOX_WEYL = 0x9E3779B9, 0xBB67AE85


def _philox(counter: Array, key: tuple[int, int]) -> Array:
    """Philox4x32-10: counter (4, ...) of 32-bit words held in uint64, key two words -> (4, ...) words."""
    a, b, c, d = counter
    key_0, key_1 = key
    for _ in range(10):
        first, second = a * PHILOX_MULTIPLIERS[0], c * PHILOX_MULTIPLIERS[1]
        a, c = (second >> HALF) ^ b ^ np.uint64(key_0), (first >> HALF) ^ d ^ np.uint64(key_1)
        b, d = second & LOW, first & LOW
        key_0, key_1 = (key_0 + PHILOX_WEYL[0]) % 2**32, (key_1 + PHILOX_WEYL[1]) % 2**32
    return np.stack([a, b, c, d])


def _unit(words: Array, length: float) -> Array:
    """Words -> middles of 2^32 equal parts of (0, length), rounded to float32 where the card rounds."""
    part = float(np.float32(length * 2.0**-32))
    return (words.astype(np.float32).astype(np.float64) * part + part / 2).astype(np.float32)


def _curand_normal(words: Array) -> Array:
    u, v = _unit(words[0::2], 1.0), _unit(words[1::2], 2 * math.pi)
    radius = np.sqrt(np.float32(-2) * np.log(u))
    return np.stack([radius * np.sin(v), radius * np.cos(v)], axis=1).reshape(words.shape)


def _box_muller_blocks(uniform: Array) -> Array:
    """Uniform numbers (16 n,) -> normal numbers (16 n,), in their own precision."""
    real = uniform.dtype.type
    u, v = uniform.reshape(-1, 2, 8).swapaxes(0, 1)
    radius, angle = np.sqrt(real(-2) * np.log(real(1) - u)), real(2 * math.pi) * v
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)


def _unsigned(seed: int) -> int:
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"a seed of torch is a whole number of 64 bits, not {seed}.")
    return seed % 2**64


def _as_tuple(shape: Shape) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


def _checked(dtype: DTypeLike) -> np.dtype:
    dtype = np.dtype(dtype)
    if dtype.name not in ("float16", "bfloat16", "float32", "float64"):
        raise ValueError(f"torch draws float16, bfloat16, float32 or float64, not {dtype.name}.")
    return dtype
